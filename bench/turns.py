"""Contenders measured in turns, so that what disturbs the machine disturbs them alike."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch

from objectives.turns import rounds


@dataclass(frozen=True)
class Times:
    """Seconds of one contender, turn by turn."""

    turns_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The middle one."""
        return statistics.median(self.turns_s)


@dataclass(frozen=True)
class Ratio:
    """How often faster one contender is than another: median and quartiles over the turns."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.shown(2)

    def shown(self, digits: int) -> str:
        """Median, and the quartiles in brackets."""
        median, low, high = (f"{each:.{digits}f}" for each in (self.median, self.low, self.high))
        return f"{median} ({low}–{high})"


def take_turns(
    contenders: Mapping[str, Callable[[], object]], turns: int, device: torch.device
) -> dict[str, Times]:
    """Call each once to warm up, then all of them `turns` times, in another order each time."""
    for call in contenders.values():
        call()
    taken = list(islice(rounds(contenders, device), turns))
    return {name: Times(tuple(each[name] for each in taken)) for name in contenders}


def ratio(slow: Times, fast: Times) -> Ratio:
    """How often faster `fast` is, turn by turn, as each pair met the same disturbance."""
    ratios = [a / b for a, b in zip(slow.turns_s, fast.turns_s, strict=True)]
    if len(ratios) < 2:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)
