"""Intervals that need no distribution: of medians. Only numpy, for machines that have no more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

LEVEL = 0.95
LEAST_FOR_MEDIAN = 6  # values, below which no interval of a median reaches 95 %


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of what is between its ends."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether `value` lies within it."""
        return self.low <= value <= self.high


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The median with its interval, whatever the distribution; at least `LEAST_FOR_MEDIAN` values.

    Between the order statistics whose coverage is exactly known it interpolates, so that the
    coverage is near `level` and not above it. Raises ValueError for fewer values, or where even
    the extremes cover less than `level`.

    Source: Hettmansperger & Sheather 1986, "Confidence intervals based on interpolated order
    statistics", Statistics & Probability Letters 4.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    covered = [_coverage(count, depth) for depth in range(1, count // 2 + 1)]
    if count < LEAST_FOR_MEDIAN or covered[0] < level:
        raise ValueError(f"{count} values are too few for an interval of {level:.4g}")
    depth = max(index + 1 for index, share in enumerate(covered) if share >= level)
    inner = covered[depth] if depth < len(covered) else 0.0
    outer = covered[depth - 1]
    share = (outer - level) / (outer - inner)
    weight = (count - depth) * share / (depth + (count - 2 * depth) * share)
    low = (1 - weight) * ordered[depth - 1] + weight * ordered[depth]
    high = (1 - weight) * ordered[count - depth] + weight * ordered[count - depth - 1]
    return Interval(float(np.median(ordered)), float(low), float(high))


def least_for_median(level: float) -> int:
    """How many values an interval of the median needs at this level."""
    count = LEAST_FOR_MEDIAN
    while _coverage(count, 1) < level:
        count += 1
    return count


@cache
def _coverage(count: int, depth: int) -> float:
    """How often the median lies between the `depth`-th smallest and the `depth`-th largest."""
    tail = sum(math.comb(count, k) for k in range(depth))
    return 1.0 - 2.0 * tail / 2.0**count
