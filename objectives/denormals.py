"""How much slower training is where floats become denormal: the same run, flushed and not.

A number below 1.2e-38 has no float32 of full precision. Processors compute with what is left, the
denormals, in microcode, many times slower, unless they are told to take zero instead. In a
saturated softmax, and in the squares of tiny gradients that Adam keeps, there are many of them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch

from objectives.data import SearchData
from objectives.execution import PLAIN
from objectives.feed import feed
from objectives.intervals import Interval
from objectives.order import batches
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.speed import Goal, Race, race
from objectives.starting import start
from objectives.steps import PlainStep
from objectives.stretch import Contender

UNFLUSHED, FLUSHED = "as it is", "flushed"
_DENORMAL = 1e-40  # in float32
_CPU = torch.device("cpu")  # what computes denormals slowly


@dataclass(frozen=True)
class Slowdown:
    """A race between training steps of one run with denormals, and with zeros instead."""

    model: str
    lr: float
    batch_size: int
    steps: int  # trained before the race
    loss: float  # at the end of these; NaN: it had diverged, and there is nothing to compute
    race: Race

    @property
    def has_diverged(self) -> bool:
        """Whether it was not finite any more when it was raced."""
        return math.isnan(self.loss)

    def ratio(self, family: int = 1) -> Interval:
        """Time of a step with denormals by that of one without; `family` as in `Race.ratio`."""
        return self.race.ratio(FLUSHED, family)


def slowdown(config: TrainConfig, data: SearchData, steps: int, goal: Goal) -> Slowdown:
    """Train `steps` steps with denormals, then race the next ones with and without them.

    Each goes on by itself from there, as a flushed step leaves no denormals to the next. Operation
    by operation, as the article's models are written, in one thread, as the setting is one of the
    thread; both are put back afterwards.
    """
    with one_thread(), flushing(False):
        run, twin = (start(config, data.to(_CPU), _CPU, PLAIN) for _ in range(2))
        torch.set_flush_denormal(False)  # which a run sets
        loss, step = math.nan, _next_steps(run, 0)
        for _ in range(steps):
            loss = step()
        twin.model.load_state_dict(run.model.state_dict())
        twin.optimizer.load_state_dict(deepcopy(run.optimizer.state_dict()))
        both = [
            _contender(UNFLUSHED, False, run, step),
            _contender(FLUSHED, True, twin, _next_steps(twin, steps)),
        ]
        found = race(lambda is_reversed: both[::-1] if is_reversed else both, _CPU, goal)
    loss = loss if math.isfinite(loss) else math.nan
    return Slowdown(config.model, config.lr, config.batch_size, steps, loss, found)


def _next_steps(run: Run, done: int) -> Callable[[], float]:
    """Makes, when called, the next training step after `done` ones; returns its loss."""
    config = run.config
    seen, size = done * config.batch_size, config.batch_size
    order = batches(config.train_images, size, config.seed, seen, _CPU)
    source, step = feed(run.data.train, order), PlainStep(run.loss, run.optimizer)
    return lambda: float(step(*next(source)))


def _contender(name: str, flush: bool, run: Run, step: Callable[[], float]) -> Contender:
    """Blocks are not counted: both run the same ones. Nor is memory."""

    def call() -> None:
        torch.set_flush_denormal(flush)
        step()

    return Contender(name, call, run.model, (), run.counted.macs, run.config.batch_size, int)


@contextmanager
def flushing(on: bool) -> Iterator[None]:
    """Within it this thread flushes denormals or not; afterwards as before."""
    before = is_flushing()
    torch.set_flush_denormal(on)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def is_flushing() -> bool:
    """Whether this thread takes zero for denormals."""
    return float(torch.full((1,), _DENORMAL) * 1.0) == 0.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes in one thread; afterwards in as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
