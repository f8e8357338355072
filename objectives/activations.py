"""The activation lab: what happens inside a model while it classifies images.

One pass over the images with a watcher at each norm, activation, attention and block, as
`models.anatomy` says where they are; a second for statistics of the population, a third with an
injected extreme. Modes, buffers, merged attention and hooks are afterwards as they were.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.anatomy import Anatomy, Stream, anatomy
from models.modes import modes_kept
from models.vit import unmerged
from objectives.attention_entropy import AttentionEntropy, EntropyMeter
from objectives.channels import Channels, ChannelSums
from objectives.feature_maps import FeatureMap, feature_maps
from objectives.feed import feed, in_order
from objectives.images import Split
from objectives.injection import Injection, inject
from objectives.layers import LayerActivations, NormMeter, depth_of
from objectives.residual import BlockChange, ChangeMeter
from objectives.running_stats import RunningStatistics, compare_statistics
from objectives.saturation import Saturation, SaturationMeter
from objectives.watching import Watcher, watched

BATCH_SIZE = 32  # images at once


@dataclass(frozen=True)
class Inspection:
    """What was measured in a model; all by depth, in order of execution."""

    images: int
    accuracy: float
    layers: tuple[LayerActivations, ...]  # one for each norm
    folded: tuple[str, ...]  # places where a norm was folded away
    activations: tuple[Saturation, ...]  # one for each block, as the following two
    blocks: tuple[BlockChange, ...]
    attention: tuple[AttentionEntropy, ...]
    statistics: tuple[RunningStatistics, ...]  # one for each BatchNorm
    entry: Channels  # of the residual stream before the first block
    maps: tuple[FeatureMap, ...]
    injection: Injection | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is no finite number is None."""
        plain = _finite(asdict(self))
        assert isinstance(plain, dict)
        return plain


@torch.no_grad()
def inspect(
    model: nn.Module, split: Split, population: Tensor | None, factor: float | None = None
) -> Inspection:
    """Measure `model` in evaluation mode on the images of `split`.

    `population` (B, C, H, W) are the pixels that BatchNorm's statistics are compared on, None
    where these are not. With a `factor`, the channel of the largest magnitude before the first
    block is multiplied by it.
    """
    found = anatomy(model)
    meters = _Meters(model, found)
    hits = torch.zeros((), dtype=torch.int64)
    with modes_kept(model), unmerged(model):
        model.eval()
        with watched(model, meters.watchers()):
            for pixels, labels in feed(split, in_order(len(split), BATCH_SIZE)):
                hits += (model(pixels).argmax(1) == labels).sum().cpu()
        entry = meters.entry.result()
        channel = int(torch.tensor(entry.magnitudes).argmax())  # a NaN counts as the largest
        injection = None
        if factor is not None:
            injection = inject(model, split, BATCH_SIZE, channel, factor)
        maps = feature_maps(model, found.streams, split.pixels(split.images[:1]))
    return Inspection(
        images=len(split),
        accuracy=int(hits) / len(split),
        layers=meters.layers(),
        folded=meters.folded,
        activations=tuple(meter.result() for meter in meters.activations),
        blocks=tuple(meter.result() for meter in meters.blocks),
        attention=tuple(meter.result() for meter in meters.attention),
        statistics=() if population is None else compare_statistics(model, population),
        entry=entry,
        maps=maps,
        injection=injection,
    )


class _Meters:
    """All that listens in the first pass."""

    def __init__(self, model: nn.Module, found: Anatomy) -> None:
        norms = {site.path: model.get_submodule(site.path) for site in found.sites}
        self.folded = tuple(p for p, norm in norms.items() if isinstance(norm, nn.Identity))
        self.norms = [
            NormMeter(site, norms[site.path], depth_of(site, found.blocks))
            for site in found.sites
            if site.path not in self.folded
        ]
        self.activations = [
            SaturationMeter(parts.activation, model.get_submodule(parts.activation))
            for parts in found.feed_forwards
        ]
        self.blocks = [ChangeMeter(stream) for stream in found.streams]
        self.attention = [EntropyMeter(stream.attention) for stream in found.streams]
        self.entry = ChannelSums()
        self.first: Stream = found.streams[0]

    def watchers(self) -> list[tuple[str, Watcher]]:
        watchers: list[tuple[str, Watcher]] = [(one.site.path, one.add) for one in self.norms]
        watchers += [(one.path, one.add) for one in self.activations]
        for block in self.blocks:
            watchers += block.watchers()
        for attention in self.attention:
            watchers += attention.watchers()
        return [*watchers, (self.first.block, self._enter)]

    def layers(self) -> tuple[LayerActivations, ...]:
        return tuple(meter.result() for meter in self.norms)

    def _enter(self, _module: Any, args: Any, _named: Any, _output: Any) -> None:
        self.entry.add(args[self.first.argument])


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(one) for one in value]
    return value
