"""What can be concluded from a few paired runs: intervals, probabilities, verdicts in words.

The coverage of each interval at 3, 5 and 10 seeds is simulated in its tests, and told in
docs/results/coverage.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

import numpy as np
from scipy import optimize, special, stats

from objectives.intervals import LEVEL, Interval

LEAST_FOR_VERDICT = 5  # pairs; with fewer there are numbers, and no verdict
POWER = 0.8  # with which the smallest difference would have been shown
NO_DIFFERENCE = "no difference shown"
_FARTHEST = 8.0  # standard deviations from 0 that are told apart: P(A > B) is 0 or 1 by then
_GRID = 500  # points of the integral behind the noncentral t distribution
TOO_FEW = f"no verdict: fewer than {LEAST_FOR_VERDICT} seeds"


@dataclass(frozen=True)
class Comparison:
    """A against B over pairs that share seed and data order; differences are A − B."""

    pairs: int
    difference: Interval  # of the means
    p_better: Interval  # that a run of A is above the run of B with the same seed
    won: float  # pairs in which A is above B; equal ones count half
    detectable: float  # smallest true difference that so many pairs show 4 times in 5
    family: int  # how many comparisons the intervals hold for together

    @property
    def has_verdict(self) -> bool:
        """Whether there were enough pairs to say anything."""
        return self.pairs >= LEAST_FOR_VERDICT

    def verdict(self, above: str, below: str) -> str:
        """What was shown of A, in words: `above`, `below`, no difference, or too few pairs."""
        if not self.has_verdict:
            return TOO_FEW
        if self.difference.contains(0.0):
            return NO_DIFFERENCE
        return above if self.difference.estimate > 0 else below


def compared(a: Sequence[float], b: Sequence[float], family: int = 1) -> Comparison:
    """Compare paired results; raises ValueError for fewer than two pairs.

    The intervals of `family` comparisons hold together (Bonferroni), so that a verdict and its
    interval always say the same. P(A > B) as Bouthillier et al. 2021, arXiv 2103.03098, propose,
    for normally distributed differences.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    level = 1 - (1 - LEVEL) / family
    wins = sum(0.5 if d == 0 else float(d > 0) for d in differences)
    return Comparison(
        pairs=len(differences),
        difference=mean_interval(differences, level),
        p_better=_p_positive(differences, level),
        won=wins,
        detectable=detectable(stdev(differences), len(differences), level),
        family=family,
    )


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with Student's interval; raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("an interval needs two values or more")
    middle = fmean(values)
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values)
    half /= math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)


def run_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Where one more run would fall, if runs are normally distributed: wider than their mean's.

    Raises ValueError for fewer than two values.
    """
    mean = mean_interval(values, level)
    half = mean.half_width * math.sqrt(len(values) + 1)
    return Interval(mean.estimate, mean.estimate - half, mean.estimate + half)


def detectable(spread: float, pairs: int, level: float = LEVEL) -> float:
    """The smallest difference that `pairs` with this standard deviation show with `POWER`."""
    if spread == 0:
        return 0.0
    critical = float(stats.t.ppf((1 + level) / 2, pairs - 1))
    return _shift(critical, pairs, 1 - POWER) * spread / math.sqrt(pairs)


def share_interval(hits: int, count: int, level: float = LEVEL) -> Interval:
    """A share with Jeffreys' interval, whose coverage is near `level` on average over all shares.

    Source: Brown, Cai & DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    tail = (1 - level) / 2
    beta = stats.beta(hits + 0.5, count - hits + 0.5)
    low = 0.0 if hits == 0 else float(beta.ppf(tail))
    high = 1.0 if hits == count else float(beta.ppf(1 - tail))
    return Interval(hits / count, low, high)


def best_of(values: Sequence[float], k: int) -> float:
    """Expected highest of `k` of the `values`, drawn without replacement.

    What a search of k random trials would have found on average: it separates a better model
    from better luck in tuning. Source: Dodge et al. 2019, arXiv 1909.03004, without the bias
    that Tang et al. 2020, arXiv 2004.04504, found in it.
    """
    ordered, count = sorted(values), len(values)
    if not 1 <= k <= count:
        raise ValueError(f"k {k} must be from 1 to {count}, the number of values")
    weights = [math.comb(index, k - 1) for index in range(count)]
    chosen = math.comb(count, k)
    return sum(weight / chosen * value for weight, value in zip(weights, ordered, strict=True))


def _p_positive(differences: Sequence[float], level: float) -> Interval:
    """Φ(mean / standard deviation), with the exact interval from the noncentral t distribution."""
    spread, count = stdev(differences), len(differences)
    if spread == 0:
        sign = math.copysign(1.0, differences[0]) if differences[0] else 0.0
        certain = (1 + sign) / 2
        return Interval(certain, certain, certain) if sign else Interval(0.5, 0.0, 1.0)
    observed = math.sqrt(count) * fmean(differences) / spread
    farthest = max(_FARTHEST * math.sqrt(count), 30.0)
    observed = min(max(observed, -farthest), farthest)
    tail = (1 - level) / 2
    low, high = (_shift(observed, count, share) for share in (1 - tail, tail))
    to_share = stats.norm.cdf
    return Interval(
        float(to_share(observed / math.sqrt(count))),
        float(to_share(low / math.sqrt(count))),
        float(to_share(high / math.sqrt(count))),
    )


def _shift(observed: float, count: int, below: float) -> float:
    """The noncentrality under which a t statistic lies below `observed` with that probability."""
    scales = observed * _spreads(count - 1)

    def excess(shift: float) -> float:
        return float(special.ndtr(scales - shift).mean()) - below

    reach = 10.0 + float(abs(scales).max())
    return float(optimize.brentq(excess, -reach, reach))


@cache
def _spreads(freedom: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Equally likely values of an estimated standard deviation, as shares of the true one.

    With them the noncentral t distribution is a mean of normal ones; SciPy's own fails for few
    degrees of freedom.
    """
    shares = (np.arange(_GRID) + 0.5) / _GRID
    return np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)
