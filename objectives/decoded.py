"""Image files decoded once into an array on disk, which later runs map into memory."""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from models.errors import few, first_line
from objectives.errors import DataError
from objectives.folders import Listing
from objectives.images import Images, channel_statistics

CHANNELS = 3
FORMAT = 1  # of the files in the cache
LARGEST_OWN_SIZE = 256  # pixels: square images up to this size are taken as they are
USUAL_SIZE = 224
SPARE_BYTES = 1 << 28  # of the disk, left free
LOOKED_AT = 100  # images, for one that can be read
# What Pillow raises for files that are no images, or too large to be meant.
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Decoding:
    """How files are decoded."""

    size: int  # pixels along each side
    skip_broken: bool
    order: Callable[[int], torch.Tensor] | None = None  # in which N images are stored
    validation: Callable[[int], int] = lambda _: 0  # how many of N come first, and validate


def decoded(listing: Listing, decoding: Decoding, cache: Path, name: str) -> Images:
    """The listed images at one size, from the cache below `cache` or decoded into it.

    Larger ones are scaled down until the shorter side fits, then cut at the centre. Raises
    DataError naming the files that are broken, or the space that is missing.
    """
    folder = cached_at(listing, decoding, cache, name)
    try:
        with suppress(FileNotFoundError):
            return _open(folder)
        from filelock import FileLock  # as in fetching

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / "decoding.lock"):
            if not (folder / "about.json").is_file():
                _decode(listing, decoding, folder)
            return _open(folder)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot keep decoded images in {folder.parent} ({reason})") from error


def cached_at(listing: Listing, decoding: Decoding, cache: Path, name: str) -> Path:
    """The folder below `cache` in which the listed images are, or will be, once decoded.

    Its name changes with any file, and with how they are decoded. Raises DataError for a file
    that is gone.
    """
    size, skip = decoding.size, decoding.skip_broken
    digest = hashlib.sha256(repr((FORMAT, size, skip, listing.classes)).encode())
    for path, file, label in zip(listing.paths(), listing.files, listing.labels, strict=True):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
        digest.update(os.fsencode(file))
        digest.update(f"\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    kind = f"{name}-{size}{'-readable' if skip else ''}"
    return cache / kind / digest.hexdigest()[:24]


def own_size(listing: Listing) -> int:
    """Pixels along each side of the first readable image, if it is a small square; else 224."""
    for path in islice(listing.paths(), LOOKED_AT):
        with suppress(*BROKEN), Image.open(path) as image:
            width, height = image.size
            return width if width == height <= LARGEST_OWN_SIZE else USUAL_SIZE
    return USUAL_SIZE


def _decode(listing: Listing, decoding: Decoding, folder: Path) -> None:
    """Write the cache under another name, then give it its own; older ones go."""
    for left_over in folder.parent.glob("part-*"):  # of a process that was killed
        shutil.rmtree(left_over)
    size = decoding.size
    need = len(listing.files) * CHANNELS * size * size
    free = shutil.disk_usage(folder.parent).free
    if need + SPARE_BYTES > free:
        raise DataError(
            f"{len(listing.files):,} images of {size} pixels need {need / 1e9:.1f} GB in "
            f"{folder.parent}, where {free / 1e9:.1f} GB are free; set BNVIT_DATA_DIR to a larger "
            "disk or choose a smaller --image-size"
        )
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix="part-"))
    try:
        _write(listing, decoding, part)
        for older in folder.parent.iterdir():
            if older.is_dir() and older != part:
                shutil.rmtree(older, ignore_errors=True)
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(listing: Listing, decoding: Decoding, part: Path) -> None:
    size, paths = decoding.size, list(listing.paths())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(_check, paths)) if decoding.skip_broken else []
    broken = [number for number, fault in enumerate(read) if fault]
    kept = np.setdiff1d(np.arange(len(paths)), broken)
    if not len(kept):
        raise DataError(f"none of the images in {listing.root} can be read")
    order = kept if decoding.order is None else kept[decoding.order(len(kept)).numpy()]
    shape = (len(order), CHANNELS, size, size)
    images = np.lib.format.open_memmap(part / "images.npy", "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not a signal later
        with (part / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)

    def store(place: int) -> tuple[bytes, str]:
        path = paths[order[place]]
        try:
            content = path.read_bytes()
            images[place] = _pixels(content, size)
            return hashlib.sha256(content).digest(), ""
        except BROKEN as error:
            return b"", f"{path} ({first_line(str(error))})"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stored = list(pool.map(store, range(len(order))))
    if faults := [fault for _, fault in stored if fault]:
        raise DataError(
            f"broken images: {few(faults)}; replace them, or leave them out with --skip-broken"
        )
    images.flush()
    labels = np.asarray(listing.labels, dtype=np.int64)[order]
    np.save(part / "labels.npy", labels)
    digest = hashlib.sha256(repr((shape, listing.classes)).encode() + labels.tobytes())
    for content, _ in stored:
        digest.update(content)
    first = decoding.validation(len(order))
    statistics = channel_statistics(torch.from_numpy(images)[first:])
    about = {
        "statistics": [values.flatten().tolist() for values in statistics],
        "classes": listing.classes,
        "checksum": digest.hexdigest()[:16],
        "is_shuffled": decoding.order is not None,
        "skipped": [str(paths[number]) for number in broken],
    }
    (part / "about.json").write_text(json.dumps(about, indent=2))


def _check(path: Path) -> str:
    try:
        _pixels(path.read_bytes(), 8)
    except BROKEN as error:
        return first_line(str(error)) or "broken"
    return ""


def _pixels(content: bytes, size: int) -> np.ndarray:
    """The image (3, size, size) in RGB that a file of that content holds."""
    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(rgb).transpose(2, 0, 1)


def _open(folder: Path) -> Images:
    about = json.loads((folder / "about.json").read_text())
    # Mapped copy-on-write: read when wanted, shared between processes, and never written.
    images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in about["statistics"])
    return Images(
        images, labels, about["classes"], about["checksum"], about["is_shuffled"], (mean, std)
    )
