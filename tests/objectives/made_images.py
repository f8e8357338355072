"""Data sets in their published layouts, with a few small images that a model can tell apart."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from objectives import cifar

WNIDS = ("n01443537", "n01629819", "n02056570")


def pixels(label: int, number: int, size: int, width: int | None = None) -> np.ndarray:
    """An image (height, width, 3) whose colour says its class."""
    generator = np.random.default_rng((label, number))
    noise = generator.integers(0, 60, (size, width or size, 3))
    noise[..., label % 3] += 150
    return noise.astype(np.uint8)


def save_image(path: Path, label: int, number: int, size: int, width: int | None = None) -> None:
    """Write one image in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(label, number, size, width)).save(path)


def image_folder(
    root: Path, per_class: int = 16, classes: int = 3, size: int = 20, suffix: str = "png"
) -> Path:
    """An ImageFolder with train/ and val/, a quarter as many images in the latter."""
    for half, count in (("train", per_class), ("val", max(per_class // 4, 1))):
        for label in range(classes):
            for number in range(count):
                name = root / half / f"class-{label}" / f"{number}.{suffix}"
                save_image(name, label, number + (1000 if half == "val" else 0), size)
    return root


def tiny_imagenet(root: Path, per_class: int = 16, size: int = 64) -> Path:
    """Tiny-ImageNet's own layout: train/WNID/images/*.JPEG with boxes, val/ with annotations."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\tsomething\n" for wnid in WNIDS))
    for label, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid
        for number in range(per_class):
            save_image(folder / "images" / f"{wnid}_{number}.JPEG", label, number, size)
        lines = [f"{wnid}_{number}.JPEG\t0\t0\t62\t62\n" for number in range(per_class)]
        (folder / f"{wnid}_boxes.txt").write_text("".join(lines))
    lines = []
    for number in range(per_class):
        label = (number * 2) % len(WNIDS)
        save_image(root / "val" / "images" / f"val_{number}.JPEG", label, 500 + number, size)
        lines.append(f"val_{number}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save_image(root / "test" / "images" / "test_0.JPEG", 0, 900, size)
    return root


def cifar_batches(
    name: str, images: int, classes: int | None = None
) -> dict[str, dict[bytes, Any]]:
    """The contents of each file of a CIFAR archive, by name."""
    layout = cifar.SETS[name]
    found: dict[str, dict[bytes, Any]] = {}
    for place, file in enumerate((*layout.train, *layout.test)):
        labels = [(place + number) % (classes or layout.classes) for number in range(images)]
        data = [
            pixels(label, place * images + number, cifar.SIZE).transpose(2, 0, 1).reshape(-1)
            for number, label in enumerate(labels)
        ]
        found[file] = {b"data": np.stack(data), layout.labels: labels, b"batch_label": b"made"}
    return found


def cifar_archive(root: Path, name: str, batches: dict[str, dict[bytes, Any]]) -> Path:
    """A tar.gz as it is published, pickled by protocol 2."""
    layout = cifar.SETS[name]
    path = root / layout.archive
    with tarfile.open(path, "w:gz") as tar:
        for file, batch in batches.items():
            content = pickle.dumps(batch, protocol=2)
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
