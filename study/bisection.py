"""Which learning rates are trained to find where training stops being stable.

Pure: from what was trained to what is to be trained next. `study.slots` asks under its lock.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from models.errors import InputError
from study.bracket import Trained, bracket
from study.plan import MOST_SEEDS, Held, Slot, Values

MOST_RATES = 100
MOST_STEPS = 10
CLOSEST = 1.01  # factor between neighbours of the grid, which steps can still divide
_DIGITS = 8  # of a learning rate: machines may differ in the last of a logarithm


@dataclass(frozen=True)
class Bisection:
    """Learning rates for each batch size, each trained with all seeds: a grid, then steps.

    A step halves the bracket on the logarithmic scale.
    """

    lr: tuple[float, float]
    batch_sizes: tuple[int, ...]
    grid: int  # learning rates at first, evenly on the logarithmic scale
    steps: int  # further ones
    seeds: int  # runs of each

    def check(self) -> None:
        """Raise InputError where it cannot be trained."""
        low, high = self.lr
        if not (math.isfinite(high) and 0 < low < high):
            raise InputError(f"lr range {low:g}:{high:g} must be positive, the lower end first")
        if not self.batch_sizes or len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise InputError("a batch size is given twice; give each once")
        if not 2 <= self.grid <= MOST_RATES:
            raise InputError(f"grid {self.grid} must be from 2 to {MOST_RATES} learning rates")
        if (high / low) ** (1 / (self.grid - 1)) < CLOSEST:
            raise InputError(
                f"lr range {low:g}:{high:g} is too narrow for {self.grid} learning rates; widen "
                "it, or give a smaller --grid"
            )
        if not 0 <= self.steps <= MOST_STEPS:
            raise InputError(f"steps {self.steps} must be from 0 to {MOST_STEPS}")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"seeds {self.seeds} must be from 1 to {MOST_SEEDS:,}")

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid, from the lowest learning rate to the highest."""
        low, high = self.lr
        inner = (low * (high / low) ** (i / (self.grid - 1)) for i in range(1, self.grid - 1))
        return (low, *map(_rounded, inner), high)

    @property
    def runs(self) -> int:
        """How many trials that makes, whatever comes of them."""
        return len(self.batch_sizes) * (self.grid + self.steps) * self.seeds

    def values(self, seed: int, numbers: range, held: Held) -> list[Values]:
        """Values for new slots, as many as can be given yet, one batch size after another.

        `seed` is the first. A slot that failed is not held: its values are given again.
        """
        slots = held()
        taken = {tuple(sorted(slot.values.items())) for slot in slots}
        found: list[Values] = []
        for batch_size in self.batch_sizes:
            known = self.known(s for s in slots if s.values["batch_size"] == batch_size)
            for lr in rates_to_train(self.rates, self.steps, known):
                for own_seed in range(seed, seed + self.seeds):
                    values = {"lr": lr, "batch_size": batch_size, "seed": own_seed}
                    if tuple(sorted(values.items())) not in taken:
                        found.append(values)
        return found[: len(numbers)]

    def known(self, slots: Iterable[Slot]) -> dict[float, Trained]:
        """Of slots with one batch size: what came of each rate whose runs have all ended."""
        ended: dict[float, list[Slot]] = {}
        for slot in slots:
            if slot.outcome is not None:
                ended.setdefault(slot.values["lr"], []).append(slot)
        return {
            lr: Trained(
                tuple(slot.outcome for slot in found if slot.outcome is not None),
                math.fsum(slot.accuracy or 0.0 for slot in found) / len(found),
            )
            for lr, found in sorted(ended.items())
            if len(found) == self.seeds
        }


def rates_to_train(
    grid: Sequence[float], steps: int, known: Mapping[float, Trained]
) -> list[float]:
    """The learning rates of one batch size, in order, as far as `known` ones decide about them.

    Each step goes between the ends of the bracket, and needs all those before it. Where one end is
    missing – all are stable, or none is – there is nothing to halve: then steps go beside the
    learning rate of the best accuracy, a stable one if there is any; of equals the lowest.
    """
    found = list(grid)
    for _ in range(steps):
        if not all(lr in known for lr in found):
            break
        found.append(_next({lr: known[lr] for lr in found}))
    return found


def _next(known: Mapping[float, Trained]) -> float:
    ends = bracket(known)
    if ends.low is not None and ends.high is not None:
        return _between(ends.low, ends.high)
    best = max(known, key=lambda lr: (known[lr].is_stable, known[lr].accuracy, -lr))
    gaps = [gap for gap in pairwise(sorted(known)) if best in gap]
    return _between(*max(gaps, key=lambda gap: gap[1] / gap[0]))


def _between(low: float, high: float) -> float:
    return _rounded(math.sqrt(low) * math.sqrt(high))


def _rounded(lr: float) -> float:
    return float(f"{lr:.{_DIGITS}g}")
