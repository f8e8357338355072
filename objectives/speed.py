"""How fast models are, against each other: interleaved, until the intervals are narrow.

All contenders of a race do the same work on the same images in one process, in turns; what is
compared is always one round with itself. Data loading is no part of it.

Of two equal models the one that was built later is faster by half a per cent; why is not known. So
half of the rounds are of contenders built in the opposite order.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import torch

from objectives.calibration import Calibration, kernel_s
from objectives.intervals import LEVEL, Interval, least_for_median, median_interval
from objectives.stretch import Build, Taken, stretch

FIRST_LOOK = 30  # rounds before the intervals are looked at; doubled each time
MOST_ATTEMPTS = 3  # at a measurement that the calibration calls in question


@dataclass(frozen=True)
class Timing:
    """What was measured of one contender."""

    name: str
    samples_s: tuple[float, ...]  # seconds per step, one sample a round
    images: int  # per step
    blocks: int  # constructed
    blocks_executed: float  # per step, while it was timed
    macs: int  # of one image's forward pass
    peak_bytes: int | None  # of the device's memory; None: not to be measured on this device

    @property
    def seconds(self) -> Interval:
        """Seconds of a step: the median and its interval."""
        return median_interval(self.samples_s)

    @property
    def images_per_s(self) -> float:
        """Images per second, by the median."""
        return self.images / median(self.samples_s)


@dataclass(frozen=True)
class Goal:
    """When a race has been run long enough."""

    half_width: float = 0.01  # of the ratios' intervals, as a share
    most_rounds: int = 480
    sample_s: float = 0.03  # that one sample takes at least, of so many calls
    limit_s: float = 120.0  # of one attempt, about
    family: int = 1  # ratios whose intervals are to hold together
    kernel_s: float = 1.0  # that the calibration kernel runs before, and after

    @property
    def least_rounds(self) -> int:
        """Rounds without which there would be no interval, whatever the time."""
        return least_for_median(level_of(self.family))

    def looks(self) -> Sequence[int]:
        """Rounds after which the intervals are looked at: few, as each look is a chance to stop."""
        first = min(FIRST_LOOK, self.most_rounds)
        count = int(math.log2(max(self.most_rounds / first, 1)))
        return [first << doubled for doubled in range(count + 1)]


@dataclass(frozen=True)
class Race:
    """The timings of contenders that took turns."""

    timings: tuple[Timing, ...]  # the first is what the others are compared with
    calibration: Calibration
    attempts: int
    is_narrow: bool  # whether the goal was reached

    @property
    def trouble(self) -> str:
        """Why the measurement is unreliable; empty if it is reliable."""
        return self.calibration.trouble

    def ratio(self, name: str, family: int = 1) -> Interval:
        """How often faster `name` is than the first: the article's r, round by round.

        The intervals of `family` ratios hold together (Bonferroni).
        """
        first_s, other_s = self.timings[0].samples_s, self._named(name).samples_s
        return ratio_of(first_s, other_s, level_of(family))

    def _named(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)


def level_of(family: int) -> float:
    """The level of each of so many intervals that hold together at `LEVEL` (Bonferroni)."""
    return 1 - (1 - LEVEL) / family


def gain(ratio: Interval) -> Interval:
    """The article's gain g = 1 − 1/r: the share of time that is saved."""
    return Interval(*(1 - 1 / each for each in (ratio.estimate, ratio.low, ratio.high)))


def race(build: Build, device: torch.device, goal: Goal, best_s: float | None = None) -> Race:
    """Measure the contenders in turns, and again where the device was disturbed.

    `best_s`: the calibration kernel's best seconds on this device, if known.
    """
    attempts = 0
    while True:
        attempts += 1
        before_s = kernel_s(device, goal.kernel_s)
        timings, is_narrow = _attempt(build, device, goal)
        calibration = Calibration(before_s, kernel_s(device, goal.kernel_s), best_s)
        if not calibration.trouble or attempts == MOST_ATTEMPTS:
            return Race(timings, calibration, attempts, is_narrow)


def _attempt(build: Build, device: torch.device, goal: Goal) -> tuple[tuple[Timing, ...], bool]:
    began_s, done = time.monotonic(), 0
    stretches: list[list[Taken]] = []
    for look in goal.looks():
        left_s = goal.limit_s - (time.monotonic() - began_s)
        enough = _enough((look - done + 1) // 2, time.monotonic() + left_s / 2, goal.least_rounds)
        stretches.append(stretch(build, False, device, goal.sample_s, enough))
        # The opposite order gets as many rounds, however long they take.
        half = len(stretches[-1][0].samples_s)
        as_many = _enough(half, math.inf, 0)
        stretches.append(stretch(build, True, device, goal.sample_s, as_many))
        done += 2 * half
        timings = tuple(map(_timing, zip(*stretches, strict=True)))
        is_narrow = _is_narrow(timings, goal)
        if is_narrow or time.monotonic() - began_s > goal.limit_s:
            break
    return timings, is_narrow


def _enough(most: int, until_s: float, least: int) -> Callable[[int], bool]:
    """Whether half of what a look needs has been taken, or as many as must be and time is over."""

    def is_over(count: int) -> bool:
        is_late = time.monotonic() > until_s and 2 * count >= least
        return count >= most or is_late

    return is_over


def _timing(taken: Sequence[Taken]) -> Timing:
    """What several stretches gave of one contender."""
    first = taken[0]
    return Timing(
        name=first.name,
        samples_s=tuple(sample for one in taken for sample in one.samples_s),
        images=first.images,
        blocks=first.blocks,
        blocks_executed=fmean(one.blocks_executed for one in taken),
        macs=first.macs,
        peak_bytes=first.peak_bytes,
    )


def _is_narrow(timings: Sequence[Timing], goal: Goal) -> bool:
    """Whether all ratios to the first, or its own time where it is alone, are known so well."""
    first, *others = timings
    if len(first.samples_s) < goal.least_rounds:
        return False
    level = level_of(goal.family)
    found = [ratio_of(first.samples_s, other.samples_s, level) for other in others]
    return all(is_narrow(each, goal.half_width) for each in found or [first.seconds])


def is_narrow(found: Interval, half_width: float) -> bool:
    """Whether an interval reaches no farther than that share of its estimate to each side."""
    return found.half_width <= half_width * found.estimate


def ratio_of(first_s: Sequence[float], other_s: Sequence[float], level: float = LEVEL) -> Interval:
    """How often faster the other is, round by round, as both met the same disturbance."""
    return median_interval([a / b for a, b in zip(first_s, other_s, strict=True)], level)
