"""Files of weights for people: whether one can be written there, and writing it whole."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from torch import Tensor

from models.errors import InputError
from objectives import card
from objectives.card import Card
from study.export import replace_file
from study.report_files import check_file


def check_weights_file(path: Path) -> None:
    """Raise InputError where the file would not be what it seems, or cannot be written."""
    check_file(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path} must end in .safetensors, which is what is written")


def write_weights(state: Mapping[str, Tensor], told: Card, path: Path) -> None:
    """The file whole or not at all, once it was read again. Raises InputError."""
    with TemporaryDirectory() as folder:
        made = Path(folder) / "model.safetensors"
        card.save(made, state, told)
        card.load(made)
        put(made, path)


def put(made: Path, path: Path) -> None:
    """Copy the file `made` to `path`, whole or not at all. Raises InputError."""

    def copy(file: IO[bytes]) -> None:
        with made.open("rb") as source:
            shutil.copyfileobj(source, file)

    try:
        replace_file(path, copy)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error})") from error
