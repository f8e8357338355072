"""Where the parts of a transformer are: norms and their neighbours, feed-forwards, blocks.

What surgery replaces, folding removes, the activation lab listens to, and people are shown,
whatever family a model is of.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from models.errors import InputError
from models.torchvision_import import timm_module
from models.vit import HiddenNormFeedForward, PreNormFeedForward, ViT

Role = Literal["patch", "stream", "attention", "feed-forward", "hidden", "merge", "final"]
AttentionKind = Literal["joint", "windows", "talking", "class"]


class NormedActivation(nn.Sequential):
    """A norm of the hidden features, put before the activation of a feed-forward."""


@dataclass(frozen=True)
class Site:
    """A place where a norm stands, and the linear maps that alone touch it, by their paths."""

    path: str
    role: Role
    before: str = ""  # the map whose output is normalised
    after: tuple[str, ...] = ()  # the maps that read what was normalised
    obstacle: str = ""  # why even a BatchNorm could not be folded into them


@dataclass(frozen=True)
class FeedForwardParts:
    """Paths of a feed-forward's parts."""

    first: str
    activation: str
    second: str


@dataclass(frozen=True)
class AttentionParts:
    """An attention and the linear maps whose outputs hold its queries and keys, as paths.

    "joint": one map gives queries, keys and values, heads side by side; "windows": the same within
    windows, with a bias for each distance and a mask; "talking": the same, with scores mixed over
    heads; "class": queries of the class token alone, from a map of their own.
    """

    path: str
    kind: AttentionKind
    maps: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """Where the residual stream of a block can be read: before, between and after its branches."""

    block: str  # which returns the stream after its feed-forward
    between: str  # the module whose first input is the stream between attention and feed-forward
    attention: AttentionParts
    prefix_tokens: int | None  # before those of the patches; None: there are none of patches
    argument: int = 0  # which input of the block is the stream before attention


@dataclass(frozen=True)
class Anatomy:
    """The parts of one model, in order of execution, as paths of its submodules."""

    blocks: tuple[str, ...]
    sites: tuple[Site, ...]
    feed_forwards: tuple[FeedForwardParts, ...]  # one of each block
    projections: tuple[str, ...]  # the linear maps of the blocks
    streams: tuple[Stream, ...]  # one of each block


_PATCHES = "to_patch_embedding"
_VIT_FIRST = [
    Site(f"{_PATCHES}.1", "patch", after=(f"{_PATCHES}.2",)),
    Site(f"{_PATCHES}.3", "patch", before=f"{_PATCHES}.2"),
]
_VIT_LAST = [Site("transformer.norm", "final", after=("mlp_head",))]
_CONV_NORM = Site("patch_embed.norm", "patch", before="patch_embed.proj")
_SWIN_LAST = Site("norm", "final", after=("head.fc",))
_CAIT_LAST = Site("norm", "final", after=("head",))


def anatomy(model: nn.Module) -> Anatomy:
    """Take `model` apart; raises InputError, with the reason, for one that is not understood."""
    if isinstance(model, ViT):
        return _assembled(model, _vit_blocks(model), _VIT_FIRST, _VIT_LAST)
    kind = type(model).__name__
    if isinstance(model, timm_module("models.vision_transformer").VisionTransformer):
        return _assembled(model, _timm_vit_blocks(model), *_timm_vit_ends(model))
    if isinstance(model, timm_module("models.swin_transformer").SwinTransformer):
        return _assembled(model, _swin_blocks(model), [_CONV_NORM], [_SWIN_LAST])
    if isinstance(model, timm_module("models.cait").Cait):
        return _assembled(model, _cait_blocks(model), [], [_CAIT_LAST])
    raise InputError(
        f"a {kind} is no transformer that the switches apply to: timm's VisionTransformer, "
        "SwinTransformer and Cait are"
    )


@dataclass(frozen=True)
class _Block:
    path: str
    sites: tuple[Site, ...]
    feed_forward: FeedForwardParts
    projections: tuple[str, ...]
    stream: Stream


def _assembled(
    model: nn.Module, blocks: list[_Block], first: list[Site], last: list[Site]
) -> Anatomy:
    inner: list[Site] = []
    for block in blocks:
        inner += block.sites
        parts = block.feed_forward
        around = parts.activation.rpartition(".")[0]
        if isinstance(model.get_submodule(around), NormedActivation):
            inner.append(Site(f"{around}.norm", "hidden", before=parts.first))
    return Anatomy(
        tuple(block.path for block in blocks),
        (*first, *inner, *last),
        tuple(block.feed_forward for block in blocks),
        tuple(path for block in blocks for path in block.projections),
        tuple(block.stream for block in blocks),
    )


def _activation(model: nn.Module, path: str) -> str:
    """The path of the activation itself, where a norm was put before it."""
    return f"{path}.act" if isinstance(model.get_submodule(path), NormedActivation) else path


def _vit_blocks(model: ViT) -> list[_Block]:
    found = []
    for index in range(len(model.blocks)):
        path = f"transformer.layers.{index}"
        net = f"{path}.1.net"
        feed_forward = model.get_submodule(f"{path}.1")
        sites = [Site(f"{path}.0.norm", "attention", after=(f"{path}.0.to_qkv",))]
        if isinstance(feed_forward, PreNormFeedForward):
            parts = FeedForwardParts(f"{net}.1", _activation(model, f"{net}.2"), f"{net}.4")
            sites.append(Site(f"{net}.0", "feed-forward", after=(parts.first,)))
        else:
            assert isinstance(feed_forward, HiddenNormFeedForward)
            parts = FeedForwardParts(f"{net}.0", f"{net}.2", f"{net}.4")
            sites.append(Site(f"{net}.1", "hidden", before=parts.first))
        maps = (f"{path}.0.to_qkv", f"{path}.0.to_out.0", parts.first, parts.second)
        attention = AttentionParts(f"{path}.0", "joint", (f"{path}.0.to_qkv",))
        stream = Stream(path, f"{path}.1", attention, prefix_tokens=1)
        found.append(_Block(path, tuple(sites), parts, maps, stream))
    return found


def _timm_vit_ends(model: Any) -> tuple[list[Site], list[Site]]:
    if model.attn_pool is not None:
        raise InputError("a model that pools by attention is not one that the switches apply to")
    first = []
    if _is_there(model.patch_embed.norm):
        first.append(_CONV_NORM)
    if _is_there(model.norm_pre):
        first.append(Site("norm_pre", "stream", obstacle="it stands on the residual stream"))
    heads = tuple(name for name in ("head", "head_dist") if hasattr(model, name))
    last = []
    if _is_there(model.norm):
        linear_pool = model.global_pool in ("token", "avg") and not _is_there(model.fc_norm)
        obstacle = "" if linear_pool else f"pooling by {model.global_pool} stands behind it"
        last.append(Site("norm", "final", after=heads, obstacle=obstacle))
    if _is_there(model.fc_norm):
        last.append(Site("fc_norm", "final", after=heads))
    return first, last


def _timm_vit_blocks(model: Any) -> list[_Block]:
    found = []
    for index, block in enumerate(model.blocks):
        if type(block).__name__ != "Block":
            raise InputError(f"its blocks are of timm's {type(block).__name__}, not plain ones")
        others = [block.attn.q_norm, block.attn.k_norm, getattr(block.attn, "norm", nn.Identity())]
        if any(_is_there(norm) for norm in others) or _is_there(getattr(block.mlp, "norm", None)):
            raise InputError("it has norms within attention or feed-forward beyond the usual two")
        found.append(_plain_block(model, f"blocks.{index}", "joint", model.num_prefix_tokens))
    return found


def _swin_blocks(model: Any) -> list[_Block]:
    found = []
    for stage, layer in enumerate(model.layers):
        path = f"layers.{stage}"
        merge: list[Site] = []
        if hasattr(layer.downsample, "norm"):
            after = (f"{path}.downsample.reduction",)
            merge.append(Site(f"{path}.downsample.norm", "merge", after=after))
        for index, block in enumerate(layer.blocks):
            window, grid = block.window_size[0], block.input_resolution[0]
            padded = f"windows of {window} do not tile the {grid}×{grid} patches: zeros are added"
            obstacle = padded if grid % window else ""
            one = _plain_block(model, f"{path}.blocks.{index}", "windows", 0, obstacle)
            found.append(replace(one, sites=(*merge, *one.sites)) if index == 0 else one)
    return found


def _cait_blocks(model: Any) -> list[_Block]:
    patches = [_plain_block(model, f"blocks.{i}", "talking", 0) for i in range(len(model.blocks))]
    count = len(model.blocks_token_only)
    tokens = [_plain_block(model, f"blocks_token_only.{i}", "class", None) for i in range(count)]
    return patches + tokens


def _plain_block(
    model: nn.Module, path: str, kind: AttentionKind, prefix: int | None, obstacle: str = ""
) -> _Block:
    """A block of norm1, attn, norm2 and mlp, as timm names them."""
    readers = ("q", "k", "v") if kind == "class" else ("qkv",)
    mlp = model.get_submodule(f"{path}.mlp")
    if type(mlp).__name__ != "Mlp":
        raise InputError(f"its feed-forward is timm's {type(mlp).__name__}, not a plain Mlp")
    if not all(hasattr(model.get_submodule(f"{path}.attn"), name) for name in (*readers, "proj")):
        raise InputError("its attention has no joint projection of queries, keys and values")
    qkv = tuple(f"{path}.attn.{name}" for name in readers)
    act = _activation(model, f"{path}.mlp.act")
    parts = FeedForwardParts(f"{path}.mlp.fc1", act, f"{path}.mlp.fc2")
    sites = (
        Site(f"{path}.norm1", "attention", after=qkv, obstacle=obstacle),
        Site(f"{path}.norm2", "feed-forward", after=(parts.first,)),
    )
    maps = qkv[:2]  # of the queries and keys
    attention = AttentionParts(f"{path}.attn", kind, maps)
    is_class = kind == "class"  # it gets the patches, and the stream of the class token behind them
    stream = Stream(path, f"{path}.norm2", attention, prefix, argument=1 if is_class else 0)
    projections = (*qkv, f"{path}.attn.proj", parts.first, parts.second)
    return _Block(path, sites, parts, projections, stream)


def _is_there(norm: nn.Module | None) -> bool:
    return norm is not None and not isinstance(norm, nn.Identity)
