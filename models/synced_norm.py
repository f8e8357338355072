"""Batch statistics over the images of all processes that train one model together.

torch's own nn.SyncBatchNorm refuses tensors on a CPU; this is the same for any device whose
tensors `torch.distributed` can gather (gloo's or NCCL's). All calls are collective: each process
of the default group makes them, in the same order.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Moments:
    """Of each of C features, over the rows of all processes."""

    count: Tensor  # () rows
    mean: Tensor  # (C,)
    var: Tensor  # (C,) biased


def moments_over_processes(rows: Tensor) -> Moments:
    """Moments of rows (n, C), whose number may differ between the processes.

    Counts, means and sums of squared distances are gathered and combined (Chan et al. 1979), which
    is exact where sums of squares would cancel. Each process combines the same numbers in the same
    order, so all have the same result to the last bit.
    """
    mean = rows.mean(dim=0)
    squares = (rows - mean).square().sum(dim=0)
    own = torch.cat((rows.new_full((1,), len(rows)), mean, squares))
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, own)
    counts, means, squared = torch.stack(gathered).split((1, len(mean), len(mean)), dim=1)
    count = counts.sum()
    whole = (counts * means).sum(dim=0) / count
    apart = (squared + counts * (means - whole).square()).sum(dim=0)
    return Moments(count, whole, apart / count)


class NormalizeOverProcesses(torch.autograd.Function):
    """(x - μ) / √(σ² + ε)·γ + β for rows (n, C), μ and σ² as `moments_over_processes` found them.

    The gradient of x takes the rows of all processes into account, those of γ and β only the own:
    the sum over the processes, as of every parameter, is the gradient of the whole batch.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, moments: Moments, eps: float
    ) -> Tensor:
        """Rows (n, C) normalised."""
        scale = (moments.var + eps).rsqrt()
        centred = (rows - moments.mean) * scale
        ctx.save_for_backward(centred, scale, weight, moments.count)
        return centred * weight + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of rows, γ and β."""
        centred, scale, weight, count = ctx.saved_tensors
        grad = grads[0]
        own = torch.stack((grad.sum(dim=0), (grad * centred).sum(dim=0)))
        whole = own.clone()
        distributed.all_reduce(whole)
        plain, along = whole / count
        return (grad - plain - centred * along) * (scale * weight), own[1], own[0], None, None
