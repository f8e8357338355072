"""This process's place among those that torchrun has started, if it was torchrun."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import InputError

if TYPE_CHECKING:
    import torch

    from objectives.team import Alone

SILENCE_S = 1_800.0  # of a process, beside the patience with the store, before it is given up

_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Seat:
    """Which of how many processes this is, on all nodes and on its own."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def device_name(self, asked: str) -> str:
        """The device of this process where `asked` leaves that open: a GPU of its own.

        Raises InputError where a node has not as many GPUs as processes, or `asked` is one device
        for all.
        """
        if self.size == 1 or asked == "cpu":
            return asked
        if asked not in ("auto", "cuda"):
            raise InputError(
                f"{self.size} processes cannot share the device '{asked}'; write --device cuda, of "
                "which each takes one, or cpu"
            )
        import torch

        gpus = torch.cuda.device_count()
        if gpus == 0:
            return asked
        if gpus < self.local_size:
            raise InputError(
                f"torchrun has started {self.local_size} processes here for {gpus} GPUs; give "
                f"--nproc-per-node {gpus}"
            )
        return f"cuda:{self.local_rank}"

    @contextmanager
    def team(self, device: "torch.device", patience_s: float) -> Iterator["Alone"]:
        """The processes that train each trial together; one alone where there are no others.

        `patience_s`: for so long the first may wait for the store in silence.
        """
        from objectives.team import ALONE, team_of

        if self.size == 1:
            yield ALONE
            return
        with team_of(self.rank, self.size, device, SILENCE_S + patience_s) as team:
            yield team


def seat() -> Seat:
    """This process's place; that of the only one without torchrun."""
    if _STARTED_BY_TORCHRUN not in os.environ:
        return Seat()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Seat(*(int(os.environ[name]) for name in names))


def check_command(command: str | None) -> None:
    """Raise InputError where torchrun has started several of a command that is not `worker`.

    One of them says it; the others leave without a word.
    """
    here = seat()
    if here.size > 1 and command != "worker":
        if here.rank > 0:
            sys.exit(InputError.exit_code)
        raise InputError(
            f"torchrun has started {here.size} processes of '{command}', which is meant for one; "
            "start it without torchrun and with --workers 0, then train with 'torchrun … "
            "bnvit-study worker STUDY'"
        )
