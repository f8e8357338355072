"""Times of training: synchronised with the device, warm-up left out of the throughput."""

import time

import torch

from objectives.run import Run


class Stopwatch:
    """Times the steps of one stretch; the first steps of a process count as warm-up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps = 0
        self.warm_up = run.warm_up_left
        self.warm_up_s = 0.0
        synchronize(run.device)
        self.began_s = time.perf_counter()

    def tick(self) -> None:
        """Count one step."""
        self.steps += 1
        if self.steps == self.warm_up:
            synchronize(self.run.device)
            self.warm_up_s = time.perf_counter() - self.began_s

    def stop(self) -> None:
        """Wait for the device and add the stretch to the run's times."""
        synchronize(self.run.device)
        elapsed_s = time.perf_counter() - self.began_s
        self.run.train_time_s += elapsed_s
        self.run.warm_up_left = max(self.warm_up - self.steps, 0)
        if self.steps > self.warm_up:
            self.run.segment.timed_steps += self.steps - self.warm_up
            self.run.segment.timed_s += elapsed_s - self.warm_up_s


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
