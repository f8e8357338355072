"""Data sets that are folders of image files: Tiny-ImageNet, ImageNet and any ImageFolder."""

import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import few
from models.torchvision_import import datasets
from objectives import fetching
from objectives.errors import DataError
from objectives.fetching import Wanted, torchvision_quiet

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
HALVES = {True: ("train",), False: ("val", "validation", "test")}  # names that a half's folder has
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class Listing:
    """The files of one half, with their classes."""

    root: Path
    files: tuple[str, ...]  # below root, sorted
    labels: tuple[int, ...]
    classes: int

    def paths(self) -> Iterator[Path]:
        """The files, in order."""
        return (self.root / file for file in self.files)


def list_folder(root: Path, train: bool) -> Listing:
    """One half of an ImageFolder: `train/CLASS/*` or `val/CLASS/*`.

    The classes are those of the training half, in order of their names. Raises DataError naming
    what is missing, empty or not unpacked.
    """
    _check_unpacked(root)
    halves = {half: _half(root, half) for half in (True, False)}
    names = _class_names(halves[True] or _missing(root, True))
    folder = halves[train] or _missing(root, train)
    given = _class_names(folder)
    if strangers := sorted(set(given) - set(names)):
        raise DataError(f"{folder} has classes that {halves[True]} lacks: {few(strangers)}")
    return _listed(folder, {name: names.index(name) for name in given}, len(names))


def list_tiny(root: Path, train: bool) -> Listing:
    """One half of Tiny-ImageNet in its own layout; the validation half needs no train/.

    Raises DataError.
    """
    _check_unpacked(root)
    names = _wnids(root)
    index = {name: number for number, name in enumerate(names)}
    if train:
        folder = root / "train"
        if not folder.is_dir():
            raise DataError(f"there is no {folder}; unpack {TINY_FOLDER}.zip there")
        if lacking := [name for name in names if not (folder / name).is_dir()]:
            raise DataError(f"{folder} lacks {few(lacking)}, which wnids.txt names")
        return _listed(folder, index, len(names))
    folder = root / "val"
    if (folder / ANNOTATIONS).is_file():
        return _annotated(folder, index)
    if folder.is_dir() and any(child.name in index for child in folder.iterdir()):
        return _listed(folder, index, len(names))
    raise DataError(f"there is no {folder / ANNOTATIONS}; unpack {TINY_FOLDER}.zip there")


def fetch_tiny(folder: Path) -> Path:
    """`folder`, holding Tiny-ImageNet, downloaded if need be."""

    def download(temporary: Path) -> Path:
        utils = datasets().utils
        with torchvision_quiet():
            utils.download_url(TINY_URL, str(temporary))
        with zipfile.ZipFile(temporary / f"{TINY_FOLDER}.zip") as archive:
            archive.extractall(temporary)  # checks the checksum of each file
        return temporary / TINY_FOLDER

    def fault(folder: Path) -> str:
        whole = (folder / "wnids.txt").is_file() and (folder / "val").is_dir()
        return "" if whole else "no wnids.txt and val/"

    wanted = Wanted("Tiny-ImageNet", f"what {TINY_FOLDER}.zip holds", fault, {TINY_URL: download})
    return fetching.fetch(folder, wanted)


def check_folder(folder: Path) -> Path:
    """`folder` itself, if it is one; raises DataError."""
    if folder.is_file() and folder.name.endswith(ARCHIVES):
        raise DataError(f"{folder} is not unpacked; unpack it and give the folder")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; put train/ and val/ there, a folder a class")
    return folder


def _half(root: Path, train: bool) -> Path | None:
    return next((root / name for name in HALVES[train] if (root / name).is_dir()), None)


def _missing(root: Path, train: bool) -> Path:
    raise DataError(f"there is no {root / HALVES[train][0]}; put a folder for each class there")


def _class_names(folder: Path) -> list[str]:
    names = sorted(child.name for child in folder.iterdir() if _is_class(child))
    if not names:
        raise DataError(f"{folder} has no folders of classes; put a folder for each class there")
    return names


def _is_class(child: Path) -> bool:
    return child.is_dir() and not child.name.startswith(".")


def _listed(folder: Path, index: Mapping[str, int], classes: int) -> Listing:
    files, labels = [], []
    empty = []
    for name in sorted(index):
        found = sorted(_images(folder / name, folder))
        if not found:
            empty.append(name)
        files += found
        labels += [index[name]] * len(found)
    if empty:
        raise DataError(f"{folder} has empty classes: {few(empty)}; fill or remove them")
    return Listing(folder, tuple(files), tuple(labels), classes)


def _images(folder: Path, root: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(EXTENSIONS):
                yield str(Path(place, name).relative_to(root))


def _annotated(folder: Path, index: Mapping[str, int]) -> Listing:
    """Images of `folder`/images with the classes that the annotations give them."""
    path = folder / ANNOTATIONS
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in index:
            raise DataError(f"{path}, line {number}: '{label}' is no class of wnids.txt")
        pairs.append((f"images/{name}", index[label]))
    if not pairs:
        raise DataError(f"{path} is empty; replace it by the published file")
    if missing := [name for name, _ in pairs if not (folder / name).is_file()]:
        raise DataError(f"{folder} lacks {few(missing)}, which {ANNOTATIONS} names")
    files, labels = zip(*sorted(pairs), strict=True)
    return Listing(folder, files, labels, len(index))


def _wnids(root: Path) -> list[str]:
    path = root / "wnids.txt"
    if not path.is_file():
        raise DataError(f"there is no {path}; it names Tiny-ImageNet's classes and is in its zip")
    return sorted(_lines(path))


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text; replace it by the published file") from error


def _check_unpacked(root: Path) -> None:
    """Raise DataError where there are archives and not what is in them."""
    if any(_half(root, half) for half in (True, False)):
        return
    if packed := sorted(path.name for path in root.iterdir() if path.name.endswith(ARCHIVES)):
        raise DataError(f"{few(packed)} in {root} is not unpacked; unpack it there")
