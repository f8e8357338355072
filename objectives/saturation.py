"""How many units of a feed-forward are where its activation is flat."""

from dataclasses import dataclass
from typing import Any

from torch import nn

RELU6_LIMIT = 6.0


@dataclass(frozen=True)
class Saturation:
    """The activation of a feed-forward: shares of its inputs, over images, tokens and units."""

    path: str
    activation: str  # its class
    off: float  # at 0 or less, where ReLU6 has no gradient; GELU has a small one there
    full: float | None  # at 6 or more, where ReLU6 has none; None for others


class SaturationMeter:
    """Counts what an activation is given, batch by batch."""

    def __init__(self, path: str, activation: nn.Module) -> None:
        self.path, self.name = path, type(activation).__name__
        self.has_limit = isinstance(activation, nn.ReLU6)
        self.off = self.full = self.count = 0

    def add(self, _module: Any, args: Any, _named: Any, _output: Any) -> None:
        """Count the inputs of one call."""
        (values,) = args
        self.off += int((values <= 0.0).sum())
        self.full += int((values >= RELU6_LIMIT).sum())
        self.count += values.numel()

    def result(self) -> Saturation:
        """The shares of what was counted."""
        full = self.full / self.count if self.has_limit else None
        return Saturation(self.path, self.name, self.off / self.count, full)
