"""The order in which training images are seen: a function of seed and position alone."""

from collections.abc import Iterator

import torch
from torch import Tensor


def batches(
    images: int, batch_size: int, seed: int, start: int, device: torch.device
) -> Iterator[Tensor]:
    """Indices (batch_size,) int64 on `device`, endlessly, from position `start` of the stream.

    The stream is one permutation of `images` indices after another. Batches run across its
    seams, so that every batch is full: BatchNorm sees no ragged last batch, and any position is
    reached again from its number alone.
    """
    epoch, offset = divmod(start, images)
    pending = _permutation(images, seed, epoch, device)[offset:]
    while True:
        while len(pending) < batch_size:
            epoch += 1
            pending = torch.cat((pending, _permutation(images, seed, epoch, device)))
        yield pending[:batch_size]
        pending = pending[batch_size:]


def _permutation(images: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    order = torch.randperm(images, generator=generator)
    if device.type == "cuda":  # from pageable memory the host would wait for the copy
        return order.pin_memory().to(device, non_blocking=True)
    return order.to(device)


def _mix(seed: int, epoch: int) -> int:
    """One 63-bit seed from two numbers (splitmix64's multiplier keeps neighbours apart)."""
    return (seed * 0x9E3779B97F4A7C15 + epoch + 1) % (1 << 63)
