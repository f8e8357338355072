"""The features of one image as pictures: a channel of the residual stream, patch by patch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.anatomy import Stream
from objectives.residual import StreamReader
from objectives.watching import watched

CHANNELS = 4  # pictures of each block


@dataclass(frozen=True)
class FeatureMap:
    """A channel after a block, row by row."""

    block: int  # counted from 1
    channel: int
    pixels: tuple[tuple[float, ...], ...]  # a number for each patch


@torch.no_grad()
def feature_maps(
    model: nn.Module, streams: Sequence[Stream], pixels: Tensor
) -> tuple[FeatureMap, ...]:
    """Pictures of one image (1, C, H, W) after the first, the middle and the last block.

    Of each the channels that vary most over the patches; tokens that are none of patches are left
    out, and so are blocks whose stream has none.
    """
    with_patches = [index for index, one in enumerate(streams) if one.prefix_tokens is not None]
    last = len(with_patches) - 1
    chosen = sorted({with_patches[place] for place in (0, last // 2, last)})
    readers = {index: StreamReader(streams[index]) for index in chosen}
    watchers = [watcher for reader in readers.values() for watcher in reader.watchers()]
    with watched(model, watchers):
        model(pixels)
    return tuple(
        one
        for index, reader in readers.items()
        for one in _maps(index + 1, reader.after[0], streams[index])
    )


def _maps(block: int, features: Tensor, stream: Stream) -> list[FeatureMap]:
    patches = features[stream.prefix_tokens :]  # (N, C)
    side = math.isqrt(len(patches))
    ranked = patches.var(dim=0, correction=0).argsort(descending=True)[:CHANNELS].tolist()
    return [
        FeatureMap(block, channel, tuple(map(tuple, patches[:, channel].view(side, side).tolist())))
        for channel in ranked
    ]
