"""Several processes of one worker: the first leads, the others do each trial's steps with it.

The others open no store. They are told what to train, with the state to begin from, and then go
through the same steps; whatever is decided is decided by the first (`objectives/team.py`).
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto

import torch

from objectives import starting
from objectives.errors import TeamLostError
from objectives.execution import Execution
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.team import Alone
from objectives.training import train
from study import memory
from study.identity import StudyIdentity
from study.shelf import Shelf

log = logging.getLogger(__name__)


class Word(Enum):
    """What the first process says between trials."""

    WAIT = auto()  # there is nothing to train yet; said so that nobody takes it for dead
    LEAVE = auto()


@dataclass(frozen=True)
class Order:
    """A trial to train, from where it is on."""

    study: str
    identity: StudyIdentity  # which says what it trains on
    config: TrainConfig
    execution: Execution
    state: bytes  # of the run, as a checkpoint holds it


@contextmanager
def leading(team: Alone) -> Iterator[None]:
    """At the end of this context the other processes leave, too."""
    try:
        yield
    except (KeyboardInterrupt, TeamLostError):  # in the middle of something: they find out
        raise
    except BaseException:
        with suppress(TeamLostError):
            team.shared(lambda: Word.LEAVE)
        raise
    team.shared(lambda: Word.LEAVE)


def keep_waiting(team: Alone) -> None:
    """Tell the other processes that there is nothing to train yet."""
    team.shared(lambda: Word.WAIT)


def lead(run: Run, study: str, identity: StudyIdentity) -> None:
    """Let the other processes begin the first one's `run`; raises what hinders them."""
    if run.team.size == 1:
        return
    run.team.shared(lambda: _order(run, study, identity))
    run.team.together(lambda: None)  # they have begun


def follow(team: Alone, shelf: Shelf, device: torch.device) -> None:
    """Train what the first process trains until it leaves; raises TeamLostError if it is gone."""
    while (word := _heard(team)) is not Word.LEAVE:
        if isinstance(word, Order):
            _follow(word, team, shelf, device)


def _heard(team: Alone) -> Word | Order:
    return team.shared(lambda: Word.LEAVE)  # the first process is asked instead


def _order(run: Run, study: str, identity: StudyIdentity) -> Order:
    state = io.BytesIO()
    torch.save(run.state_dict(), state)
    return Order(study, identity, run.config, run.execution, state.getvalue())


def _follow(order: Order, team: Alone, shelf: Shelf, device: torch.device) -> None:
    run = None
    try:
        run = team.together(lambda: _begun(order, team, shelf, device))
        for _ in train(run):
            pass
    except TeamLostError:
        raise
    except Exception as error:  # the first process has heard of it, and decides what it means
        log.debug("process %d leaves the trial: %s", team.rank, error)
    memory.free(run)


def _begun(order: Order, team: Alone, shelf: Shelf, device: torch.device) -> Run:
    data = shelf.data(order.study, order.identity)
    run = starting.start(order.config, data, device, order.execution, team)
    state = io.BytesIO(order.state)
    run.load_state_dict(torch.load(state, map_location="cpu", weights_only=True))
    return run
