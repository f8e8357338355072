"""Where weights lie in memory, which makes one of two equal models some per mille faster."""

import torch
from torch import Tensor, nn

_ALIGNMENT = 64  # bytes: a line of the cache


def lay_out(model: nn.Module) -> None:
    """Move the parameters and buffers of `model` into one piece of memory, one after another.

    Left where they were built, those of a model that is built later lie closer together, and it
    was 0.4 % faster than its equal (300 races on a CPU).
    """
    tensors = [*model.parameters(), *model.buffers()]
    if not tensors:
        return
    sizes = [-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
    memory = torch.empty(sum(sizes), dtype=torch.uint8, device=tensors[0].device)
    for tensor, place in zip(tensors, memory.split(sizes), strict=True):
        tensor.data = _copied(tensor, place)


def _copied(tensor: Tensor, place: Tensor) -> Tensor:
    laid = place[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return laid.copy_(tensor.detach())
