"""Model soups: the weights of several trained models averaged into one.

Source: Wortsman et al. 2022 (Model soups), arXiv 2203.05482.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import InputError
from objectives.batch_stats import recalibrated
from objectives.evaluation import evaluate
from objectives.execution import autocast
from objectives.images import Split
from objectives.precision import Precision
from objectives.recipe import PRECISION

LEAST_MEMBERS = 2
_SCHEDULED = ".lam"  # PRepBN's λ: where a schedule stands, no weight
_EVALUATION_BATCH = 250  # images

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A model that may go into a soup, on statistics that were estimated anew."""

    name: str
    state: State
    val_accuracy: float  # alone, a share


@dataclass(frozen=True)
class Step:
    """What became of a member."""

    name: str
    val_accuracy: float  # alone
    is_kept: bool
    soup_accuracy: float | None = None  # of the soup with it; None: it was not tried by itself


@dataclass(frozen=True)
class Soup:
    """An average of members, on its own statistics, and how it came about."""

    members: tuple[Member, ...]  # that are in it
    state: State
    val_accuracy: float
    steps: tuple[Step, ...]  # in the order in which members were looked at


@dataclass(frozen=True)
class Judge:
    """Judges weights as training does: BatchNorm on exact statistics of `population`."""

    model: nn.Module  # of the members' architecture; its weights are written over
    population: Tensor  # training images (B, C, H, W) as the model takes them, on its device
    split: Split  # whose images count
    precision: Precision = PRECISION

    def judged(self, state: State) -> tuple[State, float]:
        """`state` with its statistics estimated anew, and its accuracy."""
        self.model.load_state_dict(state)
        with (
            autocast(self.population.device, self.precision),
            recalibrated(self.model, self.population),
        ):
            accuracy = evaluate(self.model, self.split, _EVALUATION_BATCH).accuracy
            found = self.model.state_dict()
            return {key: value.detach().cpu().clone() for key, value in found.items()}, accuracy

    def member(self, name: str, state: State) -> Member:
        """A member called `name`, judged alone."""
        return Member(name, *self.judged(state))


def averaged(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of each tensor, taken in float64 and rounded once to the dtype that it has.

    Whole numbers are counts of training steps or tables, whose mean says nothing: they are the
    first state's. So is PRepBN's λ, which must be the same everywhere; raises InputError if not.
    Running statistics are averaged too, only to be estimated anew: they are not the average's.
    """
    return {key: _mean(key, [state[key] for state in states]) for key in states[0]}


def uniform_soup(judge: Judge, members: Sequence[Member]) -> Soup:
    """The average of all members."""
    ranked = _ranked(members)
    state, accuracy = judge.judged(averaged([one.state for one in ranked]))
    steps = [Step(one.name, one.val_accuracy, is_kept=True) for one in ranked]
    return Soup(tuple(ranked), state, accuracy, tuple(steps))


def greedy_soup(judge: Judge, members: Sequence[Member]) -> Soup:
    """The best member, and of the others, best first, those that make the soup strictly better.

    So it is never worse than the best member on the images that it is chosen by. The source also
    keeps members that leave the accuracy as it is, which on a small split says little.
    """
    best, *others = _ranked(members)
    kept, state, accuracy = [best], best.state, best.val_accuracy
    steps = [Step(best.name, best.val_accuracy, True, best.val_accuracy)]
    for one in others:
        tried, with_it = judge.judged(averaged([member.state for member in (*kept, one)]))
        is_better = with_it > accuracy
        steps.append(Step(one.name, one.val_accuracy, is_better, with_it))
        if is_better:
            kept, state, accuracy = [*kept, one], tried, with_it
    return Soup(tuple(kept), state, accuracy, tuple(steps))


def _ranked(members: Iterable[Member]) -> list[Member]:
    """The best first; of equal ones as they were given."""
    return sorted(members, key=lambda one: -one.val_accuracy)


def _mean(key: str, values: Sequence[Tensor]) -> Tensor:
    first, *others = values
    if not first.is_floating_point():
        return first
    if key.endswith(_SCHEDULED) and any(not torch.equal(first, other) for other in others):
        raise InputError(
            "members stand at different λ of PRepBN, between which there is no average; take "
            "models that were trained to the end"
        )
    total = first.double()
    for other in others:
        total = total + other.double()
    return (total / len(values)).to(first.dtype)
