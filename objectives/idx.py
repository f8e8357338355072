"""Reading the four IDX files in which MNIST and its relatives are published."""

import struct
from pathlib import Path

import torch
from torch import Tensor

from models.torchvision_import import datasets
from objectives.errors import DataError

# What torchvision's reader raises for damaged files, it having no error of its own.
_READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    RuntimeError,
    struct.error,
)

FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def check(folder: Path) -> Path:
    """`folder` itself, if all four files are in it; raises DataError naming those missing."""
    names = [name for pair in FILES.values() for name in pair]
    try:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; put {', '.join(names)} there")
        missing = [name for name in names if not (folder / name).is_file()]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder} cannot be read ({reason}); change its permissions") from error
    if missing:
        raise DataError(f"no {', '.join(missing)} in {folder}; put the uncompressed files there")
    return folder


def read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 1, size, size) uint8 and labels (N,) int64 of one half of the data set.

    Raises DataError where a file is damaged or the counts differ.
    """
    mnist = datasets().mnist
    images_file, labels_file = (folder / name for name in FILES[train])
    try:
        images: Tensor = mnist.read_image_file(str(images_file))
        labels: Tensor = mnist.read_label_file(str(labels_file))
    except _READ_ERRORS as error:
        raise DataError(
            f"{images_file} or {labels_file.name} cannot be read ({error}); replace both files"
        ) from error
    if len(images) != len(labels):
        raise DataError(f"{images_file} has {len(images)} images, {labels_file} {len(labels)}")
    return images.unsqueeze(1).contiguous(), labels.to(torch.int64)
