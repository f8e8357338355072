"""The larger backbones, built by timm with LayerNorm and GELU as they were published.

torch and timm are imported where something is built: names and sizes are told without them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from models.errors import InputError
from models.grammar import TIMM
from models.switches import ImageShape, ZooSwitches
from models.torchvision_import import timm_module

if TYPE_CHECKING:
    from torch import nn

Family = Literal["vit", "distilled", "swin", "cait"]

# In patches. Swin was published with 7 at 224 pixels and 12 at 384.
LEAST_WINDOW, USUAL_WINDOW, LARGEST_WINDOW = 4, 7, 12
LEAST_PATCHES = {"vit": 7, "distilled": 7, "cait": 7, "swin": 14}  # along each side


@dataclass(frozen=True)
class Backbone:
    """A published size of a family, at 1,000 classes."""

    family: Family
    dim: int  # of the first stage, for Swin
    depth: tuple[int, ...]  # one number, or one per stage
    heads: int  # of the first stage, for Swin
    timm_name: str  # whose pretrained weights fit
    patch_size: int = 16  # pixels


BACKBONES: Mapping[str, Backbone] = {
    "deit_tiny": Backbone("vit", 192, (12,), 3, "deit_tiny_patch16_224"),
    "deit_small": Backbone("vit", 384, (12,), 6, "deit_small_patch16_224"),
    "deit_base": Backbone("vit", 768, (12,), 12, "deit_base_patch16_224"),
    "deit_large": Backbone("vit", 1024, (12,), 16, ""),  # nobody publishes weights of 12 blocks
    "deit_base_distilled": Backbone("distilled", 768, (12,), 12, "deit_base_distilled_patch16_384"),
    "vit_large": Backbone("vit", 1024, (24,), 16, "vit_large_patch16_384"),
    "swin_tiny": Backbone("swin", 96, (2, 2, 6, 2), 3, "swin_tiny_patch4_window7_224", 4),
    "swin_small": Backbone("swin", 96, (2, 2, 18, 2), 3, "swin_small_patch4_window7_224", 4),
    "swin_base": Backbone("swin", 128, (2, 2, 18, 2), 4, "swin_base_patch4_window7_224", 4),
    "swin_large": Backbone("swin", 192, (2, 2, 18, 2), 6, "swin_large_patch4_window12_384", 4),
    "cait_xxs24": Backbone("cait", 192, (24,), 4, "cait_xxs24_224"),
    "cait_s36": Backbone("cait", 384, (36,), 8, "cait_s36_384"),
}


def resolved(name: str, switches: ZooSwitches, image: ImageShape) -> ZooSwitches:
    """`switches` with all that follows from the images filled in.

    Raises InputError where a switch does not apply to the backbone or does not fit the images.
    """
    if name.startswith(TIMM):
        return _resolved_timm(name, switches, image)
    backbone = BACKBONES[name]
    is_swin = backbone.family == "swin"
    if switches.window_size is not None and not is_swin:
        raise InputError(f"{name} has no windows; leave out --set window_size")
    if switches.depths and len(switches.depths) != len(backbone.depth):
        shown = ",".join(map(str, backbone.depth))
        raise InputError(f"depth={switches.depth} does not suit {name}, as {shown} would")
    dim, heads = switches.dim or backbone.dim, switches.heads or backbone.heads
    if dim % heads:
        raise InputError(f"dim={dim} must be a multiple of heads={heads}")
    if is_swin and switches.dropout:
        raise InputError(f"{name} is used without dropout; leave out --set dropout")
    least = LEAST_PATCHES[backbone.family]
    patch_size = switches.patch_size or image.patch_size(backbone.patch_size, least)
    image.patches(patch_size)
    window_size = switches.window_size
    if is_swin and window_size is None:
        window_size = _window(image.size // patch_size, len(backbone.depth))
    return replace(switches, patch_size=patch_size, window_size=window_size)


def build(name: str, switches: ZooSwitches, image: ImageShape) -> "nn.Module":
    """The backbone called `name`, randomly initialised as timm does it, LayerNorm everywhere."""
    s = resolved(name, switches, image)
    if name.startswith(TIMM):
        return _build_timm(name.removeprefix(TIMM), s, image)
    backbone = BACKBONES[name]
    depths = s.depths or backbone.depth
    heads = s.heads or backbone.heads
    options: dict[str, Any] = {
        "img_size": image.size,
        "patch_size": s.patch_size,
        "in_chans": image.channels,
        "num_classes": image.classes,
        "embed_dim": s.dim or backbone.dim,
        "mlp_ratio": s.mlp_ratio or 4.0,
        "proj_drop_rate": s.dropout,
        "drop_path_rate": s.drop_path,
    }
    if backbone.family == "swin":
        options |= {
            "depths": depths,
            "num_heads": tuple(heads * 2**stage for stage in range(len(depths))),
            "window_size": s.window_size,
        }
        return timm_module("models.swin_transformer").SwinTransformer(**options)
    options |= {"depth": depths[0], "num_heads": heads, "pos_drop_rate": s.dropout}
    if backbone.family == "cait":
        # LayerScale starts at 1e-5 for 24 blocks and 1e-6 for 36, as published.
        init = 1e-6 if backbone.depth[0] > 24 else 1e-5
        return timm_module("models.cait").Cait(**options, init_values=init)
    if backbone.family == "distilled":
        return timm_module("models.deit").VisionTransformerDistilled(**options)
    return timm_module("models.vision_transformer").VisionTransformer(**options)


def is_timm(name: str) -> bool:
    """Whether timm has a model of that name, without a tag of pretrained weights."""
    return bool(timm_module("models").is_model(name)) and "." not in name


def _window(patches: int, stages: int) -> int:
    """The largest window from 4 to 12 that tiles each stage's grid of patches or covers it.

    Where there is none, the published 7, with zeros around the patches.
    """
    grids = [patches]
    for _ in range(stages - 1):
        grids.append((grids[-1] + 1) // 2)
    tiling = [
        window
        for window in range(LEAST_WINDOW, min(LARGEST_WINDOW, patches) + 1)
        if all(grid <= window or grid % window == 0 for grid in grids)
    ]
    return max(tiling, default=USUAL_WINDOW)


def _resolved_timm(name: str, switches: ZooSwitches, image: ImageShape) -> ZooSwitches:
    if switches.window_size is not None:
        raise InputError(f"window_size cannot be set on {name}; leave it out")
    if len(switches.depths) > 1:
        raise InputError(f"depth={switches.depth} must be one number for {name}")
    patch_size = switches.patch_size or _native_patch(name.removeprefix(TIMM))
    image.patches(patch_size)
    return replace(switches, patch_size=patch_size)


@cache
def _native_patch(name: str) -> int:
    """The patch of timm's model; raises InputError where it is none that the switches apply to."""
    import torch

    from models.anatomy import anatomy

    with torch.device("meta"):
        model = timm_module("models").create_model(name)
    try:
        anatomy(model)
    except InputError as error:
        raise InputError(f"timm:{name}: {error}") from error
    return int(model.patch_embed.patch_size[0])


def _build_timm(name: str, switches: ZooSwitches, image: ImageShape) -> "nn.Module":
    options = {
        "patch_size": switches.patch_size,
        "embed_dim": switches.dim,
        "depth": switches.depths[0] if switches.depths else None,
        "num_heads": switches.heads,
        "mlp_ratio": switches.mlp_ratio,
        "proj_drop_rate": switches.dropout or None,
        "drop_path_rate": switches.drop_path or None,
    }
    try:
        model: nn.Module = timm_module("models").create_model(
            name,
            img_size=image.size,
            in_chans=image.channels,
            num_classes=image.classes,
            **{key: value for key, value in options.items() if value is not None},
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"timm:{name} cannot be built for {image.size} pixels: {reason}"
        ) from error
    return model
