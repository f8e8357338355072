"""Population statistics of BatchNorm: what it normalises by at evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.modes import modes_kept
from models.norms import batch_norms, whole_and_alone
from models.unified_norm import UnifiedNorm, second_moment, unified_norms

_Averaging = nn.BatchNorm1d | UnifiedNorm  # norms that keep running averages


@contextmanager
def recalibrated(model: nn.Module, pixels: Tensor) -> Iterator[None]:
    """Within this context BN and UN use the exact statistics of `pixels` (B, C, H, W).

    Weights stay fixed.

    One forward pass over a single batch: each BN's statistics are taken under those of the ones
    before it, which is exact, unlike the average of several batches. Afterwards the running
    averages, the modes and the momenta are as they were. Without BN nothing happens.

    Source: PreciseBN, Wu & Johnson 2021, arXiv 2105.07576, section 3.
    """
    norms: list[_Averaging] = [*batch_norms(model), *unified_norms(model)]
    saved = [(_buffers(norm), norm.momentum) for norm in norms]
    try:
        if norms:
            _estimate(model, norms, pixels)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, value in buffers.items():
                norm.get_buffer(name).copy_(value)


def freeze(model: nn.Module, pixels: Tensor | None) -> None:
    """Let BN and UN normalise by fixed statistics from now on, also in training (FrozenBN).

    These are the exact statistics of `pixels` (B, C, H, W), or None: those that the norms have.
    """
    norms: list[_Averaging] = [*batch_norms(model), *unified_norms(model)]
    if norms and pixels is not None:
        momenta = [norm.momentum for norm in norms]
        try:
            _estimate(model, norms, pixels)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    for norm in norms:
        norm.eval()


def _buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


def _estimate(model: nn.Module, norms: list[_Averaging], pixels: Tensor) -> None:
    hooks = []
    with modes_kept(model), whole_and_alone(norms), torch.no_grad():
        model.eval()  # no dropout
        for norm in norms:
            if isinstance(norm, UnifiedNorm):
                hooks.append(norm.register_forward_pre_hook(_take_moment))
            else:
                norm.train()
                norm.momentum = 1.0  # the newest batch replaces the average
        try:
            model(pixels)
        finally:
            for hook in hooks:
                hook.remove()


def _take_moment(norm: UnifiedNorm, inputs: tuple[Tensor]) -> None:
    norm.running_moment.copy_(second_moment(inputs[0]))
