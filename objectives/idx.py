"""Reading the four IDX files in which MNIST and its relatives are published."""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from objectives.errors import DataError

UNSIGNED_BYTE = 8  # among the format's types of elements
WORD_BYTES = 4

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
    images_file, labels_file = (folder / name for name in FILES[train])
    try:
        images, labels = _elements(images_file, rank=3), _elements(labels_file, rank=1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{images_file} or {labels_file.name} cannot be read ({error}); replace both files"
        ) from error
    if len(images) != len(labels):
        raise DataError(f"{images_file} has {len(images)} images, {labels_file} {len(labels)}")
    return images.unsqueeze(1).contiguous(), labels.to(torch.int64)


def _elements(file: Path, rank: int) -> Tensor:
    """The contents of a file of unsigned bytes, with as many dimensions as `rank`.

    Two zero bytes, the type of the elements, the rank; the sizes, four bytes each with the largest
    first; the elements. torchvision reads that as well, but takes a second to be imported.
    Raises ValueError where the file is something else, or not whole.

    Source: http://yann.lecun.com/exdb/mnist/
    """
    content = np.fromfile(file, dtype=np.uint8)
    header, found = content[: WORD_BYTES * (1 + rank)], len(content) - WORD_BYTES * (1 + rank)
    magic, *sizes = struct.unpack(f">{1 + rank}I", header.tobytes()) if found > 0 else (0,)
    if magic != UNSIGNED_BYTE << 8 | rank:
        raise ValueError(f"it is no IDX file of unsigned bytes in {rank} dimensions")
    if found != math.prod(sizes):
        raise ValueError(f"{found} bytes follow its header, not {math.prod(sizes)}")
    return torch.from_numpy(content[len(header) :]).reshape(sizes)
