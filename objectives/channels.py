"""Statistics of the channels of a layer, over all tokens of all images."""

from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean, median, pvariance

import torch
from torch import Tensor

EXTREME = 6.0  # times the layer's median of the channels' largest magnitudes


@dataclass(frozen=True)
class Channels:
    """For each channel of a layer, over images × tokens."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]  # about the channel's mean
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """The largest absolute value of each channel."""
        pairs = zip(self.lowest, self.highest, strict=True)
        return tuple(max(-low, high) for low, high in pairs)

    @property
    def extreme(self) -> tuple[int, ...]:
        """The channels whose largest magnitude exceeds six times the median of them."""
        found = self.magnitudes
        most = EXTREME * median(found)
        return tuple(index for index, value in enumerate(found) if value > most)

    def without(self, left_out: Collection[int]) -> "Channels":
        """The other channels."""
        kept = [index for index in range(len(self.mean)) if index not in left_out]
        columns = (self.mean, self.variance, self.lowest, self.highest)
        return Channels(*(tuple(column[index] for index in kept) for column in columns))


@dataclass(frozen=True)
class Spread:
    """A layer in numbers: how its values lie about zero, and how its channels differ."""

    channels: int
    mean: float  # of all values
    variance: float  # of all values
    lowest: float
    highest: float
    between: float  # share of the variance that is between the means of the channels
    extreme_channels: tuple[int, ...]  # see `Channels.extreme`
    variance_of_others: float  # of the values of all channels but the extreme ones
    between_others: float  # as `between`, without the extreme ones


def spread(channels: Channels) -> Spread:
    """The numbers of a layer from those of its channels, which have equally many values.

    The variance of all values is that of the channels' means plus the mean of their variances.
    """
    extreme = channels.extreme
    others = channels.without(set(extreme))
    variance, between = _variance(channels)
    variance_of_others, between_others = _variance(others)
    return Spread(
        channels=len(channels.mean),
        mean=fmean(channels.mean),
        variance=variance,
        lowest=min(channels.lowest),
        highest=max(channels.highest),
        between=between,
        extreme_channels=extreme,
        variance_of_others=variance_of_others,
        between_others=between_others,
    )


def _variance(channels: Channels) -> tuple[float, float]:
    """The variance of all values, and the share of it between the channels' means."""
    between = pvariance(channels.mean)
    total = between + fmean(channels.variance)
    return total, between / total if total > 0.0 else 0.0


class ChannelSums:
    """Adds tokens up, batch by batch; in float64, as means may be large beside deviations."""

    def __init__(self) -> None:
        self.count = 0
        self.parts: list[Tensor] = []  # sum, sum of squares, lowest and highest, (C,) each

    def add(self, values: Tensor) -> None:
        """Add `values` (…, C)."""
        rows = values.detach().flatten(0, -2).double()
        self.count += len(rows)
        new = [rows.sum(0), rows.square().sum(0), rows.amin(0), rows.amax(0)]
        if self.parts:
            total, squares, lowest, highest = self.parts
            new[0] += total
            new[1] += squares
            new[2] = torch.minimum(new[2], lowest)
            new[3] = torch.maximum(new[3], highest)
        self.parts = new

    def result(self) -> Channels:
        """What was added so far."""
        total, squares, lowest, highest = self.parts
        mean = total / self.count
        variance = (squares / self.count - mean.square()).clamp_min(0.0)
        columns = (mean, variance, lowest, highest)
        return Channels(*(tuple(column.tolist()) for column in columns))
