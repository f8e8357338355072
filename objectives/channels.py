"""Statistics of the channels of a layer, over all tokens of all images."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

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
    between_in_image: float  # as `between`, within single images: mean over them
    variance_of_others: float  # of the values of all channels but the extreme ones
    between_others: float  # as `between`, without the extreme ones

    @property
    def relative_mean(self) -> float:
        """The mean in standard deviations; 0 where all values are alike."""
        return _ratio(self.mean, math.sqrt(self.variance))

    @property
    def is_finite(self) -> bool:
        """Whether all values are numbers."""
        return math.isfinite(self.variance)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    @property
    def extreme_share(self) -> float:
        """The share of the channels that are extreme."""
        return len(self.extreme_channels) / self.channels


def spread(channels: Channels, between_in_image: float) -> Spread:
    """The numbers of a layer from those of its channels, which have equally many values.

    The variance of all values is that of the channels' means plus the mean of their variances.
    """
    extreme = channels.extreme
    others = channels.without(set(extreme))
    variance, between = _variance(channels)
    variance_of_others, between_others = _variance(others)
    return Spread(
        channels=len(channels.mean),
        mean=float(_exact(channels.mean).mean()),
        variance=variance,
        lowest=min(channels.lowest),
        highest=max(channels.highest),
        between=between,
        extreme_channels=extreme,
        between_in_image=between_in_image,
        variance_of_others=variance_of_others,
        between_others=between_others,
    )


def _variance(channels: Channels) -> tuple[float, float]:
    """The variance of all values, and the share of it between the channels' means."""
    between = float(_exact(channels.mean).var(correction=0))
    total = between + float(_exact(channels.variance).mean())
    return total, _ratio(between, total)


def _ratio(part: float, whole: float) -> float:
    return 0.0 if whole == 0.0 else part / whole


def _exact(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class ChannelSums:
    """Adds images up, batch by batch; in float64, as means may be large beside deviations."""

    def __init__(self) -> None:
        self.count = 0  # tokens
        self.parts: list[Tensor] = []  # sum, sum of squares, lowest and highest, (C,) each
        self.in_images = torch.zeros(2, dtype=torch.float64)  # variance between channels, and all

    def add(self, values: Tensor) -> None:
        """Add `values` (B, …, C)."""
        images = values.detach().reshape(len(values), -1, values.shape[-1]).double()
        between, total = (
            images.mean(dim=1).var(1, correction=0),
            images.flatten(1).var(1, correction=0),
        )
        self.in_images += torch.stack([between.sum(), total.sum()])
        rows = images.flatten(0, 1)
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

    def spread(self) -> Spread:
        """What was added so far, in numbers."""
        between, total = self.in_images.tolist()
        return spread(self.result(), _ratio(between, total))
