"""How far BatchNorm's running averages are from what they are averages of."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.norms import batch_norms
from objectives.batch_stats import recalibrated


@dataclass(frozen=True)
class RunningStatistics:
    """A BatchNorm's running averages μ', σ'² beside the population's μ, σ², over its channels."""

    path: str
    mean_shift: float  # mean of |μ' - μ| / √(σ² + ε)
    variance_ratio: float  # geometric mean of (σ'² + ε) / (σ² + ε)


@torch.no_grad()
def compare_statistics(model: nn.Module, pixels: Tensor) -> tuple[RunningStatistics, ...]:
    """The running averages of each BatchNorm beside the exact statistics of `pixels`.

    The exact ones of a norm are those under the exact ones of the norms before it. Weights,
    averages and modes stay as they are.
    """
    norms = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats
    }
    if not norms:
        return ()
    running = {path: _statistics(norm) for path, norm in norms.items()}
    with recalibrated(model, pixels):
        exact = {path: _statistics(norm) for path, norm in norms.items()}
    return tuple(_compared(path, running[path], exact[path]) for path in norms)


def statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copies of each BatchNorm's mean and variance, ε included, (C,) each."""
    return [_statistics(norm) for norm in batch_norms(model)]


def mean_shift(
    running: list[tuple[Tensor, Tensor]], exact: list[tuple[Tensor, Tensor]]
) -> float | None:
    """How far running averages lag behind: mean of |μ' - μ| / √(σ² + ε), over all channels.

    None where there are none.
    """
    if not exact:
        return None
    pairs = zip(running, exact, strict=True)
    shifts = [(mine[0] - its[0]).abs() / its[1].sqrt() for mine, its in pairs]
    return float(torch.cat(shifts).mean())


def _statistics(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.double().clone(), norm.running_var.double() + norm.eps


def _compared(
    path: str, running: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]
) -> RunningStatistics:
    shift = (running[0] - exact[0]).abs() / exact[1].sqrt()
    ratio = (running[1] / exact[1]).log().mean().exp()
    return RunningStatistics(path, float(shift.mean()), float(ratio))
