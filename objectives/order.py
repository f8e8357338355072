"""The order in which training images are seen: a function of seed and position alone."""

from collections.abc import Iterator

import torch
from torch import Tensor


def batches(
    images: int,
    batch_size: int,
    seed: int,
    start: int,
    device: torch.device,
    repeats: int = 1,
) -> Iterator[Tensor]:
    """Indices (batch_size,) int64 on `device`, endlessly, from position `start` of the stream.

    The stream is one permutation of `images` indices after another. Batches run across its
    seams, so that every batch is full: BatchNorm sees no ragged last batch, and any position is
    reached again from its number alone.

    With `repeats` each index comes so often in a row, to be augmented in as many ways, and the
    permutation is cut to `images` (repeated augmentation, Hoffer et al. 2020, as DeiT trains).
    Within a batch repeats of one image stand apart, so that mixing mixes it with others.
    """
    epoch, offset = divmod(start, images)
    pending = _permutation(images, seed, epoch, device, repeats)[offset:]
    while True:
        while len(pending) < batch_size:
            epoch += 1
            more = _permutation(images, seed, epoch, device, repeats)
            pending = torch.cat((pending, more))
        batch = pending[:batch_size]
        yield batch if repeats == 1 else torch.cat([batch[n::repeats] for n in range(repeats)])
        pending = pending[batch_size:]


def mixed_seed(seed: int, number: int) -> int:
    """One 63-bit seed from two numbers (splitmix64's multiplier keeps neighbours apart)."""
    return (seed * 0x9E3779B97F4A7C15 + number + 1) % (1 << 63)


def _permutation(images: int, seed: int, epoch: int, device: torch.device, repeats: int) -> Tensor:
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    order = torch.randperm(images, generator=generator)
    if repeats > 1:
        order = order.repeat_interleave(repeats)[:images]
    if device.type == "cuda":  # from pageable memory the host would wait for the copy
        return order.pin_memory().to(device, non_blocking=True)
    return order.to(device)
