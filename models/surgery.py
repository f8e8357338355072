"""Changes to a model that has LayerNorm and GELU: other norms, ReLU6, weight norm."""

from collections import OrderedDict
from functools import partial

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from models.anatomy import NormedActivation, Site, anatomy
from models.errors import InputError
from models.grammar import ModelName
from models.norms import (
    Derf,
    DyT,
    Norm,
    ProgressiveRepBatchNorm,
    RepBatchNorm,
    RMSNorm,
    TokenBatchNorm,
)
from models.switches import NormSwitches
from models.unified_norm import UnifiedNorm

RMS_EPS = 1e-6


def token_batch_norm(switches: NormSwitches) -> Norm:
    """Builds BatchNorms as `switches` want them."""
    return partial(
        TokenBatchNorm,
        momentum=switches.bn_momentum,
        track_running_stats=switches.track_running_stats,
    )


def operate(model: nn.Module, name: ModelName, switches: NormSwitches) -> nn.Module:
    """Turn `model`, which has LayerNorm and GELU, into the variant `name` of it, in place.

    The weights of linear maps stay as they are, so that all variants of a seed begin alike.
    """
    replace_norms(model, name.norm, switches)
    if name.hidden_bn:
        add_hidden_norms(model, token_batch_norm(switches))
    if name.relu6:
        use_relu6(model)
    if name.weight_norm:
        add_weight_norm(model)
    return model


def replace_norms(model: nn.Module, norm: str, switches: NormSwitches) -> None:
    """Put the norm called `norm` wherever a LayerNorm stands; `lnbn` before feed-forwards only.

    Raises InputError where a norm of another kind stands.
    """
    for site in anatomy(model).sites:
        old = model.get_submodule(site.path)
        if not _is_meant(site, norm) or isinstance(old, TokenBatchNorm):
            continue
        if not isinstance(old, nn.LayerNorm):
            raise InputError(
                f"its {site.path} is a {type(old).__name__}; norms are chosen in place of LayerNorm"
            )
        model.set_submodule(site.path, _new_norm(norm, old, switches))


def add_hidden_norms(model: nn.Module, norm: Norm) -> None:
    """Put a norm between the first linear map and the activation of each feed-forward."""
    for parts in anatomy(model).feed_forwards:
        hidden = model.get_submodule(parts.first).out_features
        activation = model.get_submodule(parts.activation)
        both = NormedActivation(OrderedDict[str, nn.Module](norm=norm(hidden), act=activation))  # type: ignore[arg-type]
        model.set_submodule(parts.activation, both)


def use_relu6(model: nn.Module) -> None:
    """Replace the activation of each feed-forward."""
    for parts in anatomy(model).feed_forwards:
        model.set_submodule(parts.activation, nn.ReLU6())


def add_weight_norm(model: nn.Module) -> None:
    """Split each block projection's weight into length and direction of its rows.

    The effective weight stays. Source: Salimans & Kingma 2016.
    """
    for path in anatomy(model).projections:
        weight_norm(model.get_submodule(path), dim=0)  # of the weight, a row per output


def remove_weight_norm(model: nn.Module) -> list[str]:
    """Make the effective weights plain ones again; returns the paths of the maps that had it."""
    found = [path for path, module in model.named_modules() if parametrize.is_parametrized(module)]
    for path in found:
        old = model.get_submodule(path)
        assert isinstance(old, nn.Linear)
        # Not by `remove_parametrizations`: it changes the class, which copies of the model share.
        plain = nn.Linear(old.in_features, old.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(old.weight.detach())
        plain.bias = old.bias
        model.set_submodule(path, plain)
    return found


def _is_meant(site: Site, norm: str) -> bool:
    return norm != "ln" and (norm != "lnbn" or site.role == "feed-forward")


def _new_norm(norm: str, old: nn.LayerNorm, switches: NormSwitches) -> nn.Module:
    (dim,) = old.normalized_shape
    batch_norm = token_batch_norm(switches)
    match norm:
        case "bn" | "lnbn":
            return batch_norm(dim)
        case "repbn":
            return RepBatchNorm(batch_norm(dim))  # type: ignore[arg-type]
        case "prepbn":
            rep = RepBatchNorm(batch_norm(dim))  # type: ignore[arg-type]
            return ProgressiveRepBatchNorm(nn.LayerNorm(dim, old.eps), rep, switches.prepbn_share)
        case "un":
            return UnifiedNorm(dim, switches.un_warm_up)
        case "rms":
            return RMSNorm(dim, RMS_EPS)
        case "dyt":
            return DyT(dim, switches.dyt_alpha)
        case "derf":
            return Derf(dim, switches.dyt_alpha)
    raise AssertionError(norm)
