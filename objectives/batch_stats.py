"""Population statistics of BatchNorm: what it normalises by at evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.modes import modes_kept
from models.norms import batch_norms, set_ghost, whole_and_alone
from models.unified_norm import UnifiedNorm, second_moment, unified_norms

_Averaging = nn.BatchNorm1d | UnifiedNorm  # norms that keep running averages


@contextmanager
def recalibrated(model: nn.Module, pixels: Tensor) -> Iterator[None]:
    """Within this context BN and UN use the exact statistics of `pixels` (B, C, H, W).

    Weights stay fixed.

    One forward pass over a single batch: each BN's statistics are taken under those of the ones
    before it, which is exact, unlike the average of several batches. Afterwards the running
    averages, the modes and the momenta are as they were. Without BN nothing happens. What is too
    large for one batch is for `population.estimate`.

    Source: PreciseBN, Wu & Johnson 2021, arXiv 2105.07576, section 3.
    """
    norms = averaging_norms(model)
    with statistics_kept(model):
        if norms:
            _estimate(model, norms, pixels)
        yield


def freeze(model: nn.Module, pixels: Tensor | None) -> None:
    """Let BN and UN normalise by fixed statistics from now on, also in training (FrozenBN).

    These are the exact statistics of `pixels` (B, C, H, W), or None: those that the norms have.
    """
    norms = averaging_norms(model)
    if norms and pixels is not None:
        _estimate(model, norms, pixels)
    for norm in norms:
        norm.eval()


@torch.no_grad()
def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Give the BNs and UNs of `target` the buffers of those of `source`, a model of its kind."""
    for mine, its in zip(averaging_norms(source), averaging_norms(target), strict=True):
        for name, buffer in mine.named_buffers():
            its.get_buffer(name).copy_(buffer)


@contextmanager
def batch_statistics(model: nn.Module, images: int) -> Iterator[None]:
    """Within this context BN normalises by the statistics of each `images` images of a batch.

    All else is in evaluation mode, UN too. Afterwards modes, running averages and the sizes of
    ghost batches are as they were.
    """
    norms = batch_norms(model)
    with modes_kept(model), statistics_kept(model), whole_and_alone(norms):
        model.eval()
        set_ghost(model, images)
        for norm in norms:
            norm.train()
        yield


def averaging_norms(model: nn.Module) -> list[_Averaging]:
    """The BNs and UNs of `model` that keep running averages."""
    return [*batch_norms(model), *unified_norms(model)]


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Put the buffers of BN and UN back as they were at the end, whatever happens."""
    saved = [(norm, _buffers(norm)) for norm in averaging_norms(model)]
    try:
        yield
    finally:
        for norm, buffers in saved:
            for name, value in buffers.items():
                norm.get_buffer(name).copy_(value)


@contextmanager
def take_moments(norms: Sequence[_Averaging]) -> Iterator[None]:
    """Within this context UN evaluates by the second moment of each batch, as BN in training."""
    hooks = [
        norm.register_forward_pre_hook(_take_moment)
        for norm in norms
        if isinstance(norm, UnifiedNorm)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


def _estimate(model: nn.Module, norms: list[_Averaging], pixels: Tensor) -> None:
    momenta = [norm.momentum for norm in norms]
    try:
        # Groups of a ghost batch would be averaged, which leaves out what is between their means.
        with modes_kept(model), torch.no_grad(), take_moments(norms), whole_and_alone(norms):
            model.eval()  # no dropout
            for norm in norms:
                if not isinstance(norm, UnifiedNorm):
                    norm.train()
                    norm.momentum = 1.0  # the newest batch replaces the average
            model(pixels)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _take_moment(norm: UnifiedNorm, inputs: tuple[Tensor]) -> None:
    norm.running_moment.copy_(second_moment(inputs[0]))
