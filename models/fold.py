"""Normalisation folded into the neighbouring linear maps, exactly, for inference.

At evaluation a BatchNorm is s·x + t for each feature, with s = γ/√(σ² + ε) and t = β - μ·s. Where
only linear maps touch what it reads or writes, they can take s and t in: a map behind it becomes
W·diag(s), b + W·t; a map before it diag(s)·W, s·b + t.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.anatomy import Site, anatomy
from models.norms import ProgressiveRepBatchNorm, RepBatchNorm
from models.surgery import remove_weight_norm
from models.unified_norm import UnifiedNorm
from models.vit import Attention


@dataclass(frozen=True)
class Folded:
    """A model for inference, and what became of the norms of the one that it was made of."""

    model: nn.Module
    folded: tuple[str, ...]  # paths of the norms that vanished
    kept: dict[str, str]  # path → why it could not fold
    fused: tuple[str, ...]  # paths of the maps whose weight norm was multiplied out


def fold(model: nn.Module) -> Folded:
    """A copy of `model` in evaluation mode, without the norms that can fold and weight norm.

    The result gives the same logits, but for rounding. `model` stays as it is.
    """
    copied = copy.deepcopy(model).eval()
    fused = remove_weight_norm(copied)
    folded: list[str] = []
    kept: dict[str, str] = {}
    for site in anatomy(copied).sites:
        if reason := why_kept(copied, site):
            kept[site.path] = reason
            _settle(copied, site.path)
            continue
        scale, shift = _affine(copied.get_submodule(site.path))
        for path in site.after:
            _fold_into_next(copied.get_submodule(path), scale, shift)
            owner = copied.get_submodule(path.rpartition(".")[0])
            if isinstance(owner, Attention):
                owner.fold_in(scale, shift)
        if site.before:
            _fold_into_previous(copied.get_submodule(site.before), scale, shift)
        copied.set_submodule(site.path, nn.Identity())
        folded.append(site.path)
    return Folded(copied, tuple(folded), kept, tuple(fused))


def why_kept(model: nn.Module, site: Site, trained: bool = True) -> str:
    """Why the norm at `site` cannot fold; empty if it can.

    `trained` false asks about the model as it will be once it has been trained to its end.
    """
    norm = model.get_submodule(site.path)
    if isinstance(norm, ProgressiveRepBatchNorm):
        if trained and not norm.is_merged:
            return f"it is PRepBN at λ = {float(norm.lam):.2g}, part LayerNorm; λ must be 0"
        norm = norm.rep
    if isinstance(norm, RepBatchNorm):
        norm = norm.bn
    if isinstance(norm, nn.BatchNorm1d):
        if not norm.track_running_stats:
            return "it normalises by the statistics of the batch"
    elif not isinstance(norm, UnifiedNorm):
        return f"{type(norm).__name__} depends on each token"
    return site.obstacle


def _settle(model: nn.Module, path: str) -> None:
    """Leave of a PRepBN that is to stay only what it computes."""
    norm = model.get_submodule(path)
    if isinstance(norm, ProgressiveRepBatchNorm) and norm.is_merged:
        model.set_submodule(path, norm.rep)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of each feature (C,), in double precision."""
    if isinstance(norm, ProgressiveRepBatchNorm):
        norm = norm.rep
    if isinstance(norm, RepBatchNorm):
        scale, shift = _affine(norm.bn)
        return scale + norm.alpha.double(), shift
    if isinstance(norm, UnifiedNorm):
        scale = norm.weight.double() / (norm.running_moment.double() + norm.eps).sqrt()
        return scale, norm.bias.double()
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


@torch.no_grad()
def _fold_into_next(linear: nn.Module, scale: Tensor, shift: Tensor) -> None:
    assert isinstance(linear, nn.Linear)
    weight = linear.weight.double()
    _set(linear, weight * scale, _bias(linear) + weight @ shift)


@torch.no_grad()
def _fold_into_previous(linear: nn.Module, scale: Tensor, shift: Tensor) -> None:
    assert isinstance(linear, nn.Linear | nn.Conv2d)
    weight = linear.weight.double()
    rows = scale.view(-1, *[1] * (weight.dim() - 1))
    _set(linear, rows * weight, scale * _bias(linear) + shift)


def _bias(linear: nn.Linear | nn.Conv2d) -> Tensor:
    if linear.bias is not None:
        return linear.bias.double()
    return linear.weight.new_zeros(len(linear.weight), dtype=torch.float64)


def _set(linear: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give `linear` a weight and a bias, which it may not have had, in its own precision."""
    like = linear.weight
    linear.weight = nn.Parameter(weight.to(like.dtype), requires_grad=like.requires_grad)
    linear.bias = nn.Parameter(bias.to(like.dtype), requires_grad=like.requires_grad)
