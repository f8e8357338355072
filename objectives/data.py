"""Data sets by name → tensors: train and validation for a search, test for the last word alone."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.errors import InputError
from models.switches import ImageShape, nearest
from objectives import idx, mnist
from objectives.errors import DataError

SPLIT_SEED = 0  # which training images validate; fixed so that all studies agree
MNIST_SHAPE = ImageShape(channels=1, size=28, classes=10)
VALIDATION_SHARE = 12  # one image in twelve: 5,000 of MNIST's 60,000


@dataclass(frozen=True)
class Split:
    """Images as stored, and their labels, on one device."""

    images: Tensor  # (N, channels, size, size) uint8
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same images on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def first(self, count: int) -> "Split":
        """The first `count` images; they are in random order already."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class SearchData:
    """What a search may see: the test images are not in it."""

    shape: ImageShape
    train: Split
    validation: Split
    checksum: str  # of all images and labels before the split

    def to(self, device: torch.device) -> "SearchData":
        """The same data on `device`."""
        return SearchData(
            self.shape, self.train.to(device), self.validation.to(device), self.checksum
        )

    def limited(self, train_images: int | None) -> "SearchData":
        """The same data with a smaller train split; raises InputError if there are not so many."""
        if train_images is None:
            return self
        if not 1 <= train_images <= len(self.train):
            raise InputError(
                f"train images {train_images} must lie between 1 and {len(self.train)}, "
                "the size of the train split"
            )
        return SearchData(
            self.shape, self.train.first(train_images), self.validation, self.checksum
        )


@dataclass(frozen=True)
class Dataset:
    """A data set that can be fetched into a folder and read from it."""

    name: str
    fetch: Callable[[], Path]  # makes the files be there; returns their folder
    read: Callable[[Path, bool], tuple[Tensor, Tensor]]  # (folder, train?) → images, labels


def dataset(name: str, data_dir: Path) -> Dataset:
    """The data set called `name`: `mnist`, or `idx:FOLDER` for local files in MNIST's format.

    Raises InputError for an unknown name.
    """
    if name == "mnist":
        return Dataset(name, lambda: mnist.fetch(data_dir / "datasets" / "mnist"), idx.read)
    kind, _, folder = name.partition(":")
    if kind == "idx" and folder:
        return Dataset(name, lambda: idx.check(Path(folder)), idx.read)
    raise InputError(f"unknown data set '{name}'{nearest(name, ['mnist', 'idx:FOLDER'])}")


def load_search_data(source: Dataset) -> SearchData:
    """Fetch `source` where needed and carve the validation split from its training images.

    Raises DataError where the files are damaged or cannot be fetched.
    """
    images, labels = source.read(source.fetch(), True)
    checksum = _checksum(images, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    validation = len(labels) // VALIDATION_SHARE
    if validation < 1:
        raise DataError(f"{source.name}: {len(labels)} training images are too few to split")
    kept, held_out = order[validation:], order[:validation]
    return SearchData(
        _shape(images, labels),
        Split(images[kept], labels[kept]),
        Split(images[held_out], labels[held_out]),
        checksum,
    )


def load_test(source: Dataset) -> Split:
    """The test images, which no search may read."""
    return Split(*source.read(source.fetch(), False))


def as_pixels(images: Tensor) -> Tensor:
    """uint8 images → float32 in [0, 1], as torchvision's ToTensor scales them."""
    return images.to(torch.float32).div_(255)


def _shape(images: Tensor, labels: Tensor) -> ImageShape:
    _, channels, height, width = images.shape
    if height != width:
        raise DataError(f"images of {height}×{width} pixels are not square")
    return ImageShape(channels, height, int(labels.max()) + 1)


def _checksum(images: Tensor, labels: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (images, labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
