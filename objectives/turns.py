"""Calls timed in turns, so that what disturbs the machine disturbs them alike."""

import gc
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager

import torch

from objectives.stopwatch import synchronize

Call = Callable[[], object]


def rounds(calls: Mapping[str, Call], device: torch.device) -> Generator[dict[str, float]]:
    """Seconds of each call, round after round, in another order each time.

    Who comes after whom may matter: one leaves the caches, and the memory, to the next. Python's
    garbage is collected between rounds, as it is nobody's to tidy up.
    """
    order, shuffle = list(calls), random.Random(0).shuffle
    with _no_collection():
        while True:
            gc.collect()
            shuffle(order)
            yield {name: seconds(calls[name], device) for name in order}


def seconds(call: Call, device: torch.device) -> float:
    """How long `call` takes: on CUDA between two of its events, else by the clock."""
    synchronize(device)
    if device.type != "cuda":
        began_s = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - began_s
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) / 1000  # it tells milliseconds


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected by itself; what there is now is not looked at again meanwhile."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
