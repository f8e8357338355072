"""Narrow and shallow models of every family, which compute in milliseconds."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.grammar import NORMS
from models.norms import DyT, RepBatchNorm, TokenBatchNorm, progressive_norms
from models.registry import Variant, variant
from models.switches import ImageShape, Switches
from models.unified_norm import UnifiedNorm

IMAGE = ImageShape(channels=3, size=32, classes=10)
SMALL: dict[str, dict[str, Any]] = {
    "vit": {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 32},
    "deit_tiny": {"dim": 32, "depth": "2", "heads": 2},
    "deit_base_distilled": {"dim": 32, "depth": "2", "heads": 2},
    "vit_large": {"dim": 32, "depth": "2", "heads": 4, "mlp_ratio": 2.0},
    "swin_tiny": {"dim": 16, "depth": "1,1,2,1", "heads": 2, "patch_size": 4},
    "cait_xxs24": {"dim": 32, "depth": "2", "heads": 2},
    "timm:vit_tiny_patch16_224": {"dim": 32, "depth": "2", "heads": 2, "patch_size": 8},
}
"""A member of each family, with the switches that make it small."""

ALL_SUFFIXES = "_ffnbn_wn_relu6"


def small_switches(chosen: Variant, **changes: Any) -> Switches:
    """The switches that make `chosen` small, with `changes`."""
    return chosen.switches(**SMALL[chosen.parts.backbone] | changes)


def small(name: str, image: ImageShape = IMAGE, **changes: Any) -> nn.Module:
    """The small form of the model called `name`; the same weights every time."""
    torch.manual_seed(0)
    chosen = variant(name)
    return chosen.build(image, small_switches(chosen, **changes))


def every_small_name(*suffixes: str) -> Iterator[str]:
    """Each small backbone with each norm and each of `suffixes`."""
    for backbone in SMALL:
        for norm in NORMS:
            for suffix in suffixes:
                yield f"{backbone}_{norm}{suffix}"


def unsettle(model: nn.Module) -> nn.Module:
    """Give each norm statistics, scale and shift of its own, and PRepBN's λ its end; in place.

    All maps get weights with which the logits are of the order of 1.
    """
    generator = torch.Generator().manual_seed(1)

    def spread(tensor: Tensor | None, low: float, high: float) -> None:
        assert tensor is not None
        drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
        tensor.copy_(low + (high - low) * drawn)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TokenBatchNorm):
                spread(module.running_mean, -0.5, 0.5)
                spread(module.running_var, 0.5, 2.0)
            elif isinstance(module, UnifiedNorm):
                spread(module.running_moment, 0.5, 2.0)
            if isinstance(module, TokenBatchNorm | UnifiedNorm | nn.LayerNorm):
                spread(module.weight, 0.5, 1.0)
                spread(module.bias, -0.5, 0.5)
            if isinstance(module, RepBatchNorm | DyT):
                spread(module.alpha, 0.1, 0.3)
            if isinstance(module, nn.Linear):
                # As large as keeps the features so: timm's are small at first.
                ratio = module.in_features**-0.5 / module.weight.std()
                lengths = getattr(module, "parametrizations", None)
                (module.weight if lengths is None else lengths.weight.original0).mul_(ratio)
        for key, parameter in model.named_parameters():
            if "gamma_" in key:  # CaiT's scales of its branches
                spread(parameter, 0.1, 0.5)
    for norm in progressive_norms(model):
        norm.set_progress(1.0)
    return model


def images(count: int = 4, image: ImageShape = IMAGE) -> Tensor:
    """Random pixels (count, channels, size, size) in [0, 1], the same every time."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, image.channels, image.size, image.size, generator=generator)
