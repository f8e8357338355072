"""CIFAR-10 and CIFAR-100, in the archives in which they are published (Krizhevsky 2009)."""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import first_line
from models.torchvision_import import datasets
from objectives import fetching
from objectives.errors import DataError
from objectives.fetching import Wanted, torchvision_quiet

SIZE = 32  # pixels
# What a pickle of arrays needs, and no more: unpickling anything else could run code.
_HARMLESS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
# What unpacking and unpickling raise for damaged files.
_READ_ERRORS = (
    pickle.UnpicklingError,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)


@dataclass(frozen=True)
class Cifar:
    """One of the two sets, as it is laid out."""

    title: str
    torchvision: str
    folder: str  # in the archive
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: bytes
    classes: int


SETS = {
    "cifar10": Cifar(
        "CIFAR-10",
        "CIFAR10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        b"labels",
        10,
    ),
    "cifar100": Cifar(
        "CIFAR-100",
        "CIFAR100",
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        ("test",),
        b"fine_labels",
        100,
    ),
}


def fetch(name: str, folder: Path) -> Path:
    """`folder`, holding the set's files, downloaded and verified by torchvision if need be."""
    cifar = SETS[name]

    def download(temporary: Path) -> Path:
        with torchvision_quiet():
            getattr(datasets(), cifar.torchvision)(str(temporary), download=True)
        (temporary / cifar.archive).unlink()
        files = temporary / "files"
        files.mkdir()
        return (temporary / cifar.folder).rename(files / cifar.folder).parent

    wanted = Wanted(
        cifar.title,
        cifar.archive,
        lambda folder: "" if _is_there(cifar, folder) else f"no {cifar.archive}",
        {"torchvision's mirror": download},
    )
    return fetching.fetch(folder, wanted)


def check(name: str, folder: Path) -> Path:
    """`folder` itself, if it holds the archive or what is in it; raises DataError."""
    cifar = SETS[name]
    if not _is_there(cifar, folder):
        raise DataError(f"no {cifar.archive} and no {cifar.folder} in {folder}; put one there")
    return folder


def read(name: str, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of one half of the set.

    Raises DataError where a file is damaged.
    """
    cifar = SETS[name]
    images, labels = [], []
    for file in cifar.train if train else cifar.test:
        batch = _unpickled(cifar, folder, file)
        try:
            images.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, SIZE, SIZE))
            labels.append(np.asarray(batch[cifar.labels], dtype=np.int64))
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(folder / cifar.folder / file, error) from error
        if len(images[-1]) != len(labels[-1]):
            counts = f"{len(images[-1])} images and {len(labels[-1])} labels"
            raise DataError(f"{folder / cifar.folder / file} has {counts}; replace it")
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def _unpickled(cifar: Cifar, folder: Path, file: str) -> Any:
    path = folder / cifar.folder / file
    opened: Callable[[], Any] = partial(_from_archive, folder / cifar.archive, cifar.folder, file)
    if path.parent.is_dir():
        opened = path.read_bytes
    try:
        return _Arrays(io.BytesIO(opened()), encoding="bytes").load()
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error


def _from_archive(archive: Path, folder: str, file: str) -> bytes:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"{folder}/{file}")
        if member is None:
            raise ValueError(f"{file} is no file in {archive.name}")
        return member.read()


class _Arrays(pickle.Unpickler):
    """Reads arrays, numbers and texts; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few things that arrays are rebuilt with."""
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _is_there(cifar: Cifar, folder: Path) -> bool:
    return (folder / cifar.folder).is_dir() or (folder / cifar.archive).is_file()


def _damaged(path: Path, error: Exception) -> DataError:
    reason = first_line(str(error))
    return DataError(f"{path} cannot be read ({reason}); replace it by the published file")
