"""A trained LayerNorm model made into a BatchNorm one: a warm start for training, not the end."""

import torch
from torch import Tensor, nn

from models.anatomy import anatomy
from models.errors import InputError
from models.grammar import ModelName
from models.modes import modes_kept
from models.norms import ProgressiveRepBatchNorm, RepBatchNorm, TokenBatchNorm
from models.surgery import operate
from models.switches import NormSwitches
from models.unified_norm import UnifiedNorm

CONVERTIBLE = ("bn", "lnbn", "repbn", "prepbn", "un")


def check_convertible(name: ModelName) -> None:
    """Raise InputError where a LayerNorm model cannot be made into the variant `name`."""
    if name.norm not in CONVERTIBLE and not (name.norm == "ln" and name.hidden_bn):
        raise InputError(
            f"--convert makes BatchNorms of LayerNorms, which {name} has not; "
            f"choose one of {', '.join(CONVERTIBLE)}, or leave out --convert"
        )


@torch.no_grad()
def convert(model: nn.Module, name: ModelName, switches: NormSwitches, pixels: Tensor) -> nn.Module:
    """Turn a trained LayerNorm `model` into the variant `name` of it, in place.

    Each new norm gets the population statistics of `pixels` (B, C, H, W) and the scale and shift
    with which it comes nearest, by least squares for each feature, to what the LayerNorm gave;
    hidden norms at first change nothing. One pass over a single batch: each norm is fitted
    to what the converted ones before it let through.

    Raises InputError for a norm that is not of BatchNorm's kind.
    """
    check_convertible(name)
    old = {site.path: model.get_submodule(site.path) for site in anatomy(model).sites}
    operate(model, name, switches)
    hooks = []
    for site in anatomy(model).sites:
        norm = model.get_submodule(site.path)
        if norm is not old.get(site.path):
            trained = old.get(site.path, nn.Identity())
            hooks.append(norm.register_forward_hook(_Fit(trained)))
    try:
        with modes_kept(model):
            model.eval()
            model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return model


class _Fit:
    """A hook that fits a norm to what another gives, and passes on what it then gives itself."""

    def __init__(self, trained: nn.Module) -> None:
        self.trained = trained

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        (x,) = inputs
        wanted = self.trained(x)
        _fit(norm, self.trained, x.flatten(0, -2), wanted.flatten(0, -2))
        return norm.forward(x)  # not by calling it, which would come here again


def _fit(norm: nn.Module, trained: nn.Module, x: Tensor, wanted: Tensor) -> None:
    """Set statistics and affine parameters of `norm` from rows (B·N, C) before and after."""
    if isinstance(norm, ProgressiveRepBatchNorm):
        norm.ln.load_state_dict(trained.state_dict())
        norm = norm.rep
    if isinstance(norm, RepBatchNorm):
        norm.alpha.zero_()
        norm = norm.bn
    mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
    slope = ((x - mean) * (wanted - wanted.mean(dim=0))).mean(dim=0) / (variance + 1e-12)
    offset = wanted.mean(dim=0) - slope * mean
    if isinstance(norm, UnifiedNorm):
        norm.running_moment.copy_(x.square().mean(dim=0))
        norm.weight.copy_(slope * (norm.running_moment + norm.eps).sqrt())
        norm.bias.copy_(offset)
        return
    assert isinstance(norm, TokenBatchNorm)
    norm.weight.copy_(slope * (variance + norm.eps).sqrt())
    norm.bias.copy_(offset + slope * mean)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
