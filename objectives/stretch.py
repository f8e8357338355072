"""A stretch of a race: contenders that were built for it take turns, and are dropped at its end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from objectives.turns import rounds, seconds

WARM_UP_S = 0.3  # of each contender, and at least WARM_UP_CALLS …
WARM_UP_CALLS = 3
MOST_WARM_UP_S = 2.0  # … if they do not take longer than this


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


Build = Callable[[bool], Sequence[Contender]]
"""Builds all contenders anew: in their order or, where it is true, in the opposite one."""


@dataclass(frozen=True)
class Taken:
    """What a stretch gave of one contender, which is gone by then."""

    name: str
    images: int  # per step
    blocks: int  # constructed
    macs: int  # of one image's forward pass
    samples_s: tuple[float, ...]  # seconds per step, one sample a round
    blocks_executed: float  # per step
    peak_bytes: int | None  # of the device's memory; None: not to be measured on this device


def stretch(
    build: Build,
    is_reversed: bool,
    device: torch.device,
    sample_s: float,
    is_over: Callable[[int], bool],
) -> list[Taken]:
    """Rounds of contenders built anew, until `is_over` of the number of rounds; in their order.

    A sample is as many calls of each as fill `sample_s`.
    """
    built = list(build(is_reversed))
    # As many of each: the first call of a sample finds the caches as another has left them.
    calls = max(_warmed_up(each, device, sample_s) for each in built)
    contenders = built[::-1] if is_reversed else built
    peaks = [_peak_bytes(each, device) for each in contenders]
    in_turns = rounds({each.name: _repeated(each.call, calls) for each in contenders}, device)
    next(in_turns)  # whoever begins is slower by a tenth
    counters = [_BlockCounter(each.blocks) for each in contenders]
    taken: list[dict[str, float]] = []
    try:
        while not is_over(len(taken)):
            taken.append(next(in_turns))
    finally:
        in_turns.close()
        for counter in counters:
            counter.remove()
    return [
        Taken(
            name=each.name,
            images=each.images,
            blocks=len(each.blocks),
            macs=each.macs,
            samples_s=tuple(one[each.name] / (calls * each.steps) for one in taken),
            blocks_executed=counter.count / (len(taken) * calls * each.steps),
            peak_bytes=peak,
        )
        for each, counter, peak in zip(contenders, counters, peaks, strict=True)
    ]


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
    while sum(taken) < (WARM_UP_S if len(taken) >= WARM_UP_CALLS else MOST_WARM_UP_S):
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
