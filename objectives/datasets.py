"""The one list of data sets: name → files → images."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.errors import InputError
from models.switches import ImageShape, nearest
from objectives import cifar, fake, folders, idx, mnist
from objectives.data_options import SPLIT_SEED, DataOptions
from objectives.decoded import CHANNELS, Decoding, cached_at, decoded, own_size
from objectives.errors import DataError
from objectives.folders import Listing
from objectives.images import Images, resized

VALIDATION_SHARE = 12  # one image in twelve: 5,000 of MNIST's 60,000

MNIST_SHAPE = ImageShape(channels=1, size=28, classes=10)
SHAPES = {
    "mnist": MNIST_SHAPE,
    "fashion-mnist": MNIST_SHAPE,
    "cifar10": ImageShape(3, 32, 10),
    "cifar100": ImageShape(3, 32, 100),
    "tiny-imagenet": ImageShape(3, 64, 200),
    "imagenet": ImageShape(3, 224, 1000),
}
"""Of the published sets, known without fetching them."""

KINDS = [*SHAPES, "folder:FOLDER", "idx:FOLDER", "fake"]


@dataclass(frozen=True)
class ImageFiles:
    """Image files in folders, which are decoded once into a cache. All raise DataError."""

    folder: Path
    list_files: Callable[[Path, bool], Listing]
    data_dir: Path
    options: DataOptions
    usual_size: int | None  # pixels; None: as the images are

    def read(self, _: Path, train: bool) -> Images:
        """One half, from the cache or decoded into it."""
        return decoded(*self._how(train))

    def is_decoded(self) -> bool:
        """Whether the training half need not be decoded any more."""
        return cached_at(*self._how(train=True)).is_dir()

    def shape(self) -> ImageShape:
        """The shape of the images, without decoding them."""
        listing = self._listing(train=True)
        return ImageShape(CHANNELS, self._size(listing), listing.classes)

    def _how(self, train: bool) -> tuple[Listing, Decoding, Path, str]:
        listing, order = self._listing(train), split_order if train else None
        size = self._size(listing if train else None)
        decoding = Decoding(size, self.options.skip_broken, order, validation_count)
        place = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        name = f"{self.folder.name}-{place}-{'train' if train else 'test'}"
        return listing, decoding, self.data_dir / "datasets" / "decoded", name

    def _size(self, training: Listing | None) -> int:
        """Pixels along each side, in both halves; `training` is listed here if it is not given."""
        known = self.options.image_size or self.usual_size
        return known or own_size(training or self._listing(train=True))

    def _listing(self, train: bool) -> Listing:
        try:
            return self.list_files(self.folder, train)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class Dataset:
    """A data set that can be fetched into a folder and read from it. Both raise DataError."""

    name: str
    folder: Path  # where its files are, or will be
    fetch: Callable[[], Path]  # makes the files be there; returns the folder
    read: Callable[[Path, bool], Images]  # (folder, train?) → one half
    standardize: bool = True  # by the channels' mean and standard deviation
    files: ImageFiles | None = None  # where it consists of image files


def dataset(name: str, data_dir: Path, options: DataOptions | None = None) -> Dataset:
    """The data set called `name`, fetched and cached below `data_dir`.

    `cifar10:FOLDER` and the like read from a folder of one's own. MNIST and its relatives are
    scaled to [0, 1] and no more, as in the article. Raises InputError for an unknown name.
    """
    options = options or DataOptions()
    kind, _, text = name.partition(":")
    size, own = options.image_size, bool(text)
    folder = Path(text).expanduser().absolute() if own else data_dir / "datasets" / kind
    if options.skip_broken and kind not in ("tiny-imagenet", "imagenet", "folder"):
        raise InputError(f"{name} has no image files of its own; leave out --skip-broken")
    if kind in ("mnist", "fashion-mnist") or (kind == "idx" and own):
        fetch = idx.check if own else {"mnist": mnist.fetch}.get(kind, mnist.fetch_fashion)
        read = partial(_read_idx, size)
        return Dataset(name, folder, partial(fetch, folder), read, standardize=False)
    if kind in cifar.SETS:
        fetch = partial(cifar.check if own else cifar.fetch, kind)
        return Dataset(name, folder, partial(fetch, folder), partial(_read_cifar, kind, size))
    if kind == "tiny-imagenet":
        fetch = folders.check_folder if own else folders.fetch_tiny
        files = ImageFiles(folder, folders.list_tiny, data_dir, options, SHAPES[kind].size)
        return Dataset(name, folder, partial(fetch, folder), files.read, files=files)
    if kind == "imagenet" or (kind == "folder" and own):
        usual = SHAPES[kind].size if kind in SHAPES else None
        files = ImageFiles(folder, folders.list_folder, data_dir, options, usual)
        check = partial(folders.check_folder, folder)
        return Dataset(name, folder, check, files.read, files=files)
    if kind == "fake":
        read = partial(_read_fake, text, size)
        return Dataset(name, data_dir, lambda: data_dir, read)
    raise InputError(f"unknown data set '{name}'{nearest(name, KINDS)}")


def shape_of(name: str, data_dir: Path, options: DataOptions) -> ImageShape | None:
    """The shape of a set's images, if it is published or a folder; None where it must be read.

    Raises DataError for a folder that is none.
    """
    shape = SHAPES.get(name)
    if shape is None and (files := dataset(name, data_dir, options).files) is not None:
        folders.check_folder(files.folder)
        shape = files.shape()
    if shape is None or options.image_size is None:
        return shape
    return ImageShape(shape.channels, options.image_size, shape.classes)


def checksum(images: Tensor, labels: Tensor) -> str:
    """A short digest of contents and shapes."""
    digest = hashlib.sha256()
    for tensor in (images, labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def split_order(count: int) -> Tensor:
    """The order in which N training images are split: validation first."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


def validation_count(count: int) -> int:
    """How many of N training images validate."""
    return count // VALIDATION_SHARE


def _read_idx(size: int | None, folder: Path, train: bool) -> Images:
    images, labels = idx.read(folder, train)
    found = Images(images, labels, int(labels.max()) + 1, checksum(images, labels))
    return _sized(found, size)


def _read_cifar(kind: str, size: int | None, folder: Path, train: bool) -> Images:
    images, labels = cifar.read(kind, folder, train)
    found = Images(images, labels, cifar.SETS[kind].classes, checksum(images, labels))
    return _sized(found, size)


def _read_fake(text: str, size: int | None, _: Path, train: bool) -> Images:
    return _sized(fake.make(text, train), size)


def _sized(found: Images, size: int | None) -> Images:
    return Images(resized(found.images, size), found.labels, found.classes, found.checksum)
