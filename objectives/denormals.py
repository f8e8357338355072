"""How much slower training is where floats become denormal: the same run, flushed and not.

A number below 1.2e-38 has no float32 of full precision. Processors compute with what is left, the
denormals, in microcode, many times slower, unless they are told to take zero instead. In a
saturated softmax, and in the squares of tiny gradients that Adam keeps, there are many of them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from models.profile import profile
from objectives.data import SearchData
from objectives.execution import PLAIN
from objectives.feed import feed
from objectives.intervals import Interval
from objectives.order import batches
from objectives.recipe import TrainConfig
from objectives.run import start
from objectives.speed import Contender, Goal, Race, race
from objectives.steps import PlainStep

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

    def ratio(self, family: int = 1) -> Interval:
        """Time of a step with denormals by that of one without; `family` as in `Race.ratio`."""
        return self.race.ratio(FLUSHED, family)


def slowdown(config: TrainConfig, data: SearchData, steps: int, goal: Goal) -> Slowdown:
    """Train `steps` steps with denormals, then race the next ones with and without them.

    Operation by operation, as the article's models are written, in one thread, as the setting is
    one of the thread; both are put back afterwards.
    """
    with one_thread(), flushing(False):
        run = start(config, data.to(_CPU), _CPU, PLAIN)
        torch.set_flush_denormal(False)  # which a run sets
        images = run.data.train
        order = batches(config.train_images, config.batch_size, config.seed, 0, _CPU)
        source, step = feed(images, order), PlainStep(run.loss, run.optimizer)
        loss = math.nan
        for _ in range(steps):
            loss = float(step(*next(source)))

        def call(flush: bool) -> None:
            torch.set_flush_denormal(flush)
            step(*next(source))

        macs = profile(run.model, data.shape).macs

        def contender(name: str, flush: bool) -> Contender:
            """Blocks are not counted: both run the same ones. Nor is memory."""
            work = partial(call, flush)
            return Contender(name, work, run.model, (), macs, config.batch_size, int)

        both = [contender(UNFLUSHED, False), contender(FLUSHED, True)]
        found = race(both, _CPU, goal)
    loss = loss if math.isfinite(loss) else math.nan
    return Slowdown(config.model, config.lr, config.batch_size, steps, loss, found)


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
