"""A trial's latest training state, on local disk, for an interrupted trial to go on."""

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class Checkpoints:
    """The states of one study's open trials, a file each, named by trial number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Replace the state of trial `number`, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._path(number).with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:  # given a path, torch hides why it cannot write
            torch.save(state, file)
        temporary.replace(self._path(number))

    def load(self, number: int) -> dict[str, Any] | None:
        """The saved state of trial `number`; None if there is none or it cannot be read.

        Only tensors and plain values are unpickled: a file cannot execute code.
        """
        path = self._path(number)
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            log.warning("trial %d starts afresh: %s cannot be read (%s)", number, path, error)
            return None
        return state

    def discard(self, number: int) -> None:
        """Delete the state of a trial that has ended, and what killed savers left of it."""
        for path in self.folder.glob(f"trial-{number}.*"):
            path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"trial-{number}.pt"
