"""Name → builder: the one list of models."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from models.errors import InputError
from models.norms import Norm, TokenBatchNorm
from models.switches import ImageShape, ViTSwitches, nearest
from models.vit import HiddenNormFeedForward, PreNormFeedForward, ViT


@dataclass(frozen=True)
class Variant:
    """A model with its normalisation."""

    name: str
    norms: str  # where each normalisation stands, for people
    uses_batch_norm: bool
    build: Callable[[ImageShape, ViTSwitches], ViT]


def vit(image: ImageShape, switches: ViTSwitches) -> ViT:
    """LayerNorm everywhere: the article's baseline."""
    return ViT(image, switches, nn.LayerNorm, PreNormFeedForward)


def vitbnffn(image: ImageShape, switches: ViTSwitches) -> ViT:
    """LayerNorm, except BatchNorm on the hidden features of the feed-forward."""
    feed_forward = partial(HiddenNormFeedForward, norm=_token_batch_norm(switches))
    return ViT(image, switches, nn.LayerNorm, feed_forward)


def vitbn(image: ImageShape, switches: ViTSwitches) -> ViT:
    """BatchNorm everywhere."""
    norm = _token_batch_norm(switches)
    return ViT(image, switches, norm, partial(HiddenNormFeedForward, norm=norm))


def _token_batch_norm(switches: ViTSwitches) -> Norm:
    return partial(
        TokenBatchNorm,
        momentum=switches.bn_momentum,
        track_running_stats=switches.track_running_stats,
    )


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("vit", "LN everywhere", uses_batch_norm=False, build=vit),
        Variant("vitbnffn", "LN; BN in the FFN", uses_batch_norm=True, build=vitbnffn),
        Variant("vitbn", "BN everywhere", uses_batch_norm=True, build=vitbn),
    )
}


def variant(name: str) -> Variant:
    """The variant called `name`. Raises InputError, suggesting the nearest name."""
    if name not in VARIANTS:
        raise InputError(f"unknown model '{name}'{nearest(name, list(VARIANTS))}")
    return VARIANTS[name]
