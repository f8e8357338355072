"""A kernel of fixed work, timed around a measurement: is the device as fast as it was, and ours?"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from objectives.turns import seconds

SIZE = {"cpu": 384, "cuda": 4096}  # of square matrices: a few milliseconds
WARM_UP = 0.25  # of the time that it runs for: threads wake up, clocks rise
MOST_DRIFT = 0.05  # between before and after, and against the best known: more is a disturbance
MOST_LOSS = 0.15


@dataclass(frozen=True)
class Calibration:
    """Seconds of the kernel before and after a measurement, and the best ever known here."""

    before_s: float
    after_s: float
    best_s: float | None = None  # None: not known

    @property
    def trouble(self) -> str:
        """Why the device cannot be trusted meanwhile; empty if it can."""
        drift = self.after_s / self.before_s - 1
        if abs(drift) > MOST_DRIFT:
            return f"the device became {abs(drift):.0%} {'slower' if drift > 0 else 'faster'}"
        if self.best_s is not None and self.before_s > self.best_s * (1 + MOST_LOSS):
            loss = self.before_s / self.best_s - 1
            return f"the device is {loss:.0%} slower than it has been: throttled, or shared"
        return ""


def kernel(device: torch.device) -> Callable[[], Tensor]:
    """A product of two matrices and a pass over memory, on `device`."""
    size = SIZE.get(device.type, SIZE["cpu"])
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=generator).to(device) for _ in range(2))

    def work() -> Tensor:
        return (a @ b).add_(b).relu_()

    return work


def kernel_s(device: torch.device, window_s: float) -> float:
    """Median seconds of the kernel, run for `window_s` after a warm-up.

    A machine that others share stalls for some tenths of a second at a time: a window has to be
    longer than that, or the stall is taken for what the device has become.
    """
    work = kernel(device)
    _run_for(work, device, WARM_UP * window_s)
    return median(_run_for(work, device, window_s))


def _run_for(work: Callable[[], Tensor], device: torch.device, limit_s: float) -> list[float]:
    taken = [seconds(work, device)]
    while sum(taken) < limit_s:
        taken.append(seconds(work, device))
    return taken
