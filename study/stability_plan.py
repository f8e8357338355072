"""What `stability` is to train: the same interface as a `Plan` of given values."""

import math
from dataclasses import dataclass
from typing import Any

from objectives.search_space import SearchSpace
from study.bisection import Bisection
from study.plan import Configuration, Kind, TrainedOn

EPOCHS = 3  # unless another number is asked for
RATES_PER_DECADE = 2  # of the grid; three steps narrow half a decade to a factor of 1.15


@dataclass(frozen=True)
class StabilityPlan:
    """A bisection for each of several models; the test images are not read."""

    bisection: Bisection
    models: tuple[str, ...] = ()  # that the same command trains, where there are several
    prefix: str | None = None  # of their studies' names; None: the data set

    kind: Kind = "stability"
    trained_on: TrainedOn = "train"
    source: str | None = None
    source_trials: int = 0
    usual_epochs: int = EPOCHS

    def check(self) -> None:
        """Raise InputError where it cannot be trained."""
        self.bisection.check()

    @property
    def runs(self) -> int:
        """How many trials that makes."""
        return self.bisection.runs

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """None is known beforehand."""
        return ()

    @property
    def space(self) -> SearchSpace:
        """The ranges that its values lie in."""
        sizes = self.bisection.batch_sizes
        return SearchSpace(self.bisection.lr, (min(sizes), max(sizes)))

    @property
    def identity_fields(self) -> dict[str, Any]:
        """What a study's identity keeps of it."""
        own = self.bisection
        return {
            "kind": self.kind,
            "batch_sizes": own.batch_sizes,
            "grid": own.grid,
            "steps": own.steps,
            "seeds": own.seeds,
        }

    def words(self, model: str) -> list[str]:
        """The command that asks for it, as far as it is about what to train."""
        own = self.bisection
        words = ["bnvit-study", self.kind, "--models", ",".join(self.models) or model]
        words += ["--batch-sizes", ",".join(map(str, own.batch_sizes))]
        words += ["--lr", f"{own.lr[0]!r}:{own.lr[1]!r}", "--grid", str(own.grid)]
        words += ["--steps", str(own.steps), "--seeds", str(own.seeds)]
        return words if self.prefix is None else [*words, "--study", self.prefix]


def usual_grid(lr: tuple[float, float]) -> int:
    """How many learning rates the grid of this range has: one per half decade, at least two.

    A range that cannot be used has two: `Bisection.check` says what is wrong with it.
    """
    low, high = lr
    if not (math.isfinite(high) and 0 < low < high):
        return 2
    return max(round(RATES_PER_DECADE * math.log10(high / low)), 1) + 1
