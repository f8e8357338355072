"""Sums over the steps since the last rung."""

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.evaluation import sums_dtype


@dataclass
class Segment:
    """Sums over the steps since the last rung, on the device so that adding never waits for it."""

    loss_sum: Tensor  # ()
    bad_step: Tensor  # () int64: the first step whose loss was not finite; 0: none
    steps: int = 0
    timed_steps: int = 0  # without warm-up
    timed_s: float = 0.0

    @classmethod
    def empty(cls, device: torch.device) -> "Segment":
        """A segment without steps."""
        zero = torch.zeros((), dtype=sums_dtype(device), device=device)
        return cls(zero, torch.zeros((), dtype=torch.int64, device=device))

    def add(self, loss: Tensor, step: int) -> None:
        """Count the step numbered `step`, with its detached loss ()."""
        self.steps += 1
        self.loss_sum += loss
        self.bad_step += ((self.bad_step == 0) & ~torch.isfinite(loss)) * step
