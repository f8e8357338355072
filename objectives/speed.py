"""How fast models are, against each other: interleaved, until the intervals are narrow.

All contenders of a race do the same work on the same images in one process, in turns; what is
compared is always one round with itself. Data loading is no part of it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from objectives.calibration import Calibration, kernel_s
from objectives.intervals import LEVEL, Interval, least_for_median, median_interval
from objectives.turns import rounds, seconds

WARM_UP_S = 0.3  # of each contender, and at least WARM_UP_CALLS
WARM_UP_CALLS = 3
FIRST_LOOK = 15  # rounds before the intervals are looked at; doubled each time
MOST_ATTEMPTS = 3  # at a measurement that the calibration calls in question


@dataclass(frozen=True)
class Contender:
    """One model at one task."""

    name: str
    call: Callable[[], object]  # a training step, or a forward pass, or several of them
    model: nn.Module  # whose blocks are counted meanwhile
    blocks: tuple[nn.Module, ...]
    macs: int  # of one image's forward pass
    images: int  # that one step takes
    held: Callable[[], int]  # bytes that it keeps between two calls
    steps: int = 1  # forward passes, with or without training, that one call makes


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
    limit_s: float = 120.0  # of one attempt
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


def race(
    contenders: Sequence[Contender],
    device: torch.device,
    goal: Goal,
    best_s: float | None = None,
) -> Race:
    """Measure the contenders in turns, and again where the device was disturbed.

    `best_s`: the calibration kernel's best seconds on this device, if known.
    """
    attempts = 0
    while True:
        attempts += 1
        before_s = kernel_s(device, goal.kernel_s)
        timings, is_narrow = _attempt(contenders, device, goal)
        calibration = Calibration(before_s, kernel_s(device, goal.kernel_s), best_s)
        if not calibration.trouble or attempts == MOST_ATTEMPTS:
            return Race(timings, calibration, attempts, is_narrow)


def _attempt(
    contenders: Sequence[Contender], device: torch.device, goal: Goal
) -> tuple[tuple[Timing, ...], bool]:
    # As many of each: the first call of a sample finds the caches as another has left them.
    calls = max(_warmed_up(each, device, goal.sample_s) for each in contenders)
    peaks = {each.name: _peak_bytes(each, device) for each in contenders}
    in_turns = rounds({each.name: _repeated(each.call, calls) for each in contenders}, device)
    next(in_turns)  # whoever begins is slower by a tenth
    counters = {each.name: _BlockCounter(each.blocks) for each in contenders}
    began_s, looks = time.monotonic(), goal.looks()
    taken: list[dict[str, float]] = []
    try:
        for one in in_turns:
            taken.append(one)
            is_late = time.monotonic() - began_s > goal.limit_s
            is_over = is_late and len(taken) >= goal.least_rounds
            if len(taken) in looks or is_over:
                timings = tuple(_timing(each, calls, taken, counters, peaks) for each in contenders)
                is_narrow = _is_narrow(timings, goal)
                if is_narrow or is_over or len(taken) >= looks[-1]:
                    break
    finally:
        in_turns.close()
        for counter in counters.values():
            counter.remove()
    return timings, is_narrow


class _BlockCounter:
    """Counts the blocks of a model that run, by hooks."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.count = 0
        self._hooks = [block.register_forward_hook(self._note) for block in blocks]

    def _note(self, *_: object) -> None:
        self.count += 1

    def remove(self) -> None:
        """Count no more."""
        for hook in self._hooks:
            hook.remove()


def _warmed_up(contender: Contender, device: torch.device, sample_s: float) -> int:
    """Warm up; returns how many calls make a sample."""
    taken: list[float] = []
    while len(taken) < WARM_UP_CALLS or sum(taken) < WARM_UP_S:
        taken.append(seconds(contender.call, device))
    return max(math.ceil(sample_s / min(taken)), 1)


def _repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(times):
            call()

    return work


def _peak_bytes(contender: Contender, device: torch.device) -> int | None:
    """What the contender needs of the device's memory at most, without the others."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    contender.call()
    return torch.cuda.max_memory_allocated(device) - before + contender.held()


def _timing(
    contender: Contender,
    calls: int,
    taken: Sequence[Mapping[str, float]],
    counters: Mapping[str, _BlockCounter],
    peaks: Mapping[str, int | None],
) -> Timing:
    steps = calls * contender.steps
    return Timing(
        name=contender.name,
        samples_s=tuple(one[contender.name] / steps for one in taken),
        images=contender.images,
        blocks=len(contender.blocks),
        blocks_executed=counters[contender.name].count / (len(taken) * steps),
        macs=contender.macs,
        peak_bytes=peaks[contender.name],
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
