"""Files of training states: written whole or not at all, and known as damaged when they are.

A file's name carries the images seen and a digest of its bytes, wherever it lies.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

KEPT = 2
_NAME = re.compile(r"(\d{15,})-([0-9a-f]{16})\.pt")


class UnusableError(Exception):
    """A file holds no state that can be read here; `damaged`: nor anywhere else."""

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


def images_seen(name: str) -> int:
    """How many images the state in a file had seen, from the file's name."""
    return int(name.partition("-")[0])


def ours(names: Iterable[str]) -> list[str]:
    """Those of `names` that a state's file may have."""
    return [name for name in names if _NAME.fullmatch(name)]


def newest_first(folder: Path) -> list[Path]:
    """The files of one trial; none if there is no such folder."""
    try:
        found = [folder / name for name in ours(path.name for path in folder.iterdir())]
    except FileNotFoundError:  # a glob would miss it if the folder is deleted meanwhile
        return []
    return sorted(found, key=lambda path: (images_seen(path.name), _mtime_s(path)), reverse=True)


def surplus(names: Iterable[str], written: str) -> list[str]:
    """Which of a trial's files to delete now that `written` is there; `names` newest first.

    The file just written stays even if it is not among the newest: those may be damaged, or of
    another attempt that has gone on too long.
    """
    return [name for name in ours(names)[KEPT:] if name != written]


def write(folder: Path, trial: str, state: dict[str, Any], seen: int) -> Path | None:
    """The new file, `folder/trial/…`; None if others discarded the trial meanwhile.

    Raises OSError where the folder cannot be written.
    """
    _make(folder)
    temporary = folder / f"{trial}.{uuid4().hex}.tmp"
    try:
        with temporary.open("w+b") as file:  # given a path, torch hides why it cannot write
            _dump(state, file)
            digest = _digest(file)
        path = folder / trial / f"{seen:015d}-{digest}.pt"
        return path if _move(temporary, path) else None
    except FileNotFoundError:  # the whole folder was deleted: the study is over
        return None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU. Raises UnusableError, or FileNotFoundError.

    Only tensors and plain values are unpickled: a file cannot execute code.
    """
    try:
        with path.open("rb") as file:
            if f"-{_digest(file)}." not in path.name:
                raise UnusableError("its content has changed", damaged=True)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, UnusableError):
        raise
    except Exception as error:  # torch raises many kinds
        raise UnusableError(str(error)) from error
    if not isinstance(state, dict):
        raise UnusableError("it holds no state")
    return state


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _dump(state: dict[str, Any], file: BufferedRandom) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch's own error is but a consequence
        if isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from None
        raise
    file.flush()
    os.fsync(file.fileno())


def _digest(file: BufferedRandom | BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _move(temporary: Path, path: Path) -> bool:
    """Rename a file into a folder that others may delete; False if they deleted the file."""
    while temporary.exists():
        with suppress(FileNotFoundError):
            _make(path.parent)
            temporary.replace(path)
            return True
    return False


def _make(folder: Path) -> None:
    """Make a folder that others may delete at any time, also just now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # deleted before mkdir could see that it is a folder
        if folder.is_file():
            raise
