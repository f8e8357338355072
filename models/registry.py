"""Name → builder: the one list of models.

torch is imported where something is built: what a name means is told without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from models import backbones
from models.backbones import BACKBONES
from models.errors import InputError
from models.grammar import NORMS, TIMM, ModelName, parse_name
from models.switches import (
    ImageShape,
    Switches,
    SwitchValue,
    ViTSwitches,
    ZooSwitches,
    non_default,
)

if TYPE_CHECKING:
    from torch import nn

    from models.vit import Transformer, ViT

_Builder = Callable[[ImageShape, ViTSwitches], "ViT"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a transformer for people; of Swin those of each stage. Empty: not known."""

    dim: str
    heads: str
    depth: str


@dataclass(frozen=True)
class Variant:
    """A model with its normalisation."""

    name: str
    norms: str  # which normalisations it has, for people
    uses_batch_norm: bool  # a batch of one image cannot be trained
    switches: type[Switches]
    parts: ModelName

    def build(
        self, image: ImageShape, switches: Switches | None = None, weight_norm: bool = True
    ) -> "nn.Module":
        """The model for such images, randomly initialised; raises InputError if they do not fit.

        `weight_norm` false leaves that out, for `surgery.add_weight_norm` to add it later.
        """
        from models.surgery import operate

        switches = self.resolved(switches, image)
        parts = self.parts if weight_norm else replace(self.parts, weight_norm=False)
        return operate(self.backbone(image, switches), parts, switches)

    def backbone(self, image: ImageShape, switches: Switches) -> "nn.Module":
        """What surgery begins with; `switches` are resolved."""
        if isinstance(switches, ViTSwitches):
            return {**ARTICLE, **DEFECTS}[self.parts.backbone](image, switches)
        return backbones.build(self.parts.backbone, switches, image)

    def check_buildable(self, image: ImageShape, switches: Switches) -> None:
        """Raise InputError where the model cannot be built so; takes no memory for weights."""
        self.build_blank(image, switches)

    def build_blank(self, image: ImageShape, switches: Switches | None = None) -> "nn.Module":
        """The model without memory for its weights, to be counted; raises InputError."""
        import torch

        with torch.device("meta"):
            return self.build(image, switches)

    def check_convertible(self) -> None:
        """Raise InputError where weights of a LayerNorm model cannot be made this one's."""
        from models.convert import check_convertible

        if self.parts.backbone in _ARTICLE_NORMS:
            raise InputError(
                f"{self.parts.backbone} is put together otherwise than its LayerNorm twin; "
                "convert to vit_bn or vit_bn_ffnbn"
            )
        check_convertible(self.parts)

    def build_twin(self, image: ImageShape, switches: Switches | None = None) -> "nn.Module":
        """The model of the same backbone that has LayerNorm and no switch, from which to convert.

        Raises InputError where there is none.
        """
        self.check_convertible()
        return self.backbone(image, self.resolved(switches, image))

    def resolved(self, switches: Switches | None, image: ImageShape) -> Switches:
        """`switches` with all that follows from the images filled in.

        Raises InputError where one does not apply or does not fit the images.
        """
        switches = self.switches() if switches is None else switches
        self.check_norm_switches(switches)
        if isinstance(switches, ViTSwitches):
            return switches.resolved(image)
        return backbones.resolved(self.parts.backbone, switches, image)

    def sizes(self, switches: Switches) -> Sizes:
        """Width of the tokens, heads and blocks, with these switches."""
        if isinstance(switches, ViTSwitches):
            return Sizes(str(switches.dim), str(switches.heads), str(switches.depth))
        known = BACKBONES.get(self.parts.backbone)
        dim, heads = switches.dim, switches.heads
        depths = switches.depths
        if known is not None:
            dim, heads, depths = dim or known.dim, heads or known.heads, depths or known.depth
        stages = [2**stage for stage in range(len(depths))]
        return Sizes(
            ", ".join(str(dim * stage) for stage in stages if dim is not None),
            ", ".join(str(heads * stage) for stage in stages if heads is not None),
            ", ".join(map(str, depths)),
        )

    @property
    def timm_name(self) -> str:
        """Whose pretrained weights fit, by timm's name; empty if nobody's."""
        if self.parts.backbone.startswith(TIMM):
            return self.parts.backbone.removeprefix(TIMM)
        return BACKBONES[self.parts.backbone].timm_name if self.parts.backbone in BACKBONES else ""

    @property
    def has_two_heads(self) -> bool:
        """Whether it has a distillation token with a head of its own, beside the class token."""
        known = BACKBONES.get(self.parts.backbone)
        if known is not None:
            return known.family == "distilled"
        return self.parts.backbone.startswith(TIMM) and "_distilled" in self.parts.backbone

    def check_norm_switches(self, switches: Switches) -> None:
        """Raise InputError for a switch of a norm that the model has not."""
        given = non_default(switches)
        for norm, (title, names) in _NORM_SWITCHES.items():
            has_it = self.has_batch_norm if norm == "bn" else self.parts.norm in norm.split()
            for name in names:
                if name in given and not has_it:
                    raise InputError(f"{self.name} has no {title}; leave out --set {name}")

    @property
    def has_batch_norm(self) -> bool:
        """Whether any of its norms is or has a BatchNorm, so that those switches matter."""
        return self.uses_batch_norm and (self.parts.norm != "un" or self.parts.hidden_bn)


def vit(image: ImageShape, switches: ViTSwitches, one_block: bool = False) -> "ViT":
    """LayerNorm everywhere: the article's baseline."""
    from torch import nn

    from models.vit import PreNormFeedForward, ViT

    return ViT(image, switches, nn.LayerNorm, PreNormFeedForward, _transformer(one_block))


def vitbnffn(image: ImageShape, switches: ViTSwitches, one_block: bool = False) -> "ViT":
    """LayerNorm, except BatchNorm on the hidden features of the feed-forward."""
    from torch import nn

    from models.surgery import token_batch_norm
    from models.vit import HiddenNormFeedForward, ViT

    feed_forward = partial(HiddenNormFeedForward, norm=token_batch_norm(switches))
    return ViT(image, switches, nn.LayerNorm, feed_forward, _transformer(one_block))


def vitbn(image: ImageShape, switches: ViTSwitches, one_block: bool = False) -> "ViT":
    """BatchNorm everywhere."""
    from models.surgery import token_batch_norm
    from models.vit import HiddenNormFeedForward, ViT

    norm = token_batch_norm(switches)
    feed_forward = partial(HiddenNormFeedForward, norm=norm)
    return ViT(image, switches, norm, feed_forward, _transformer(one_block))


def _transformer(one_block: bool) -> "type[Transformer]":
    from models.vit import FirstBlockTransformer, Transformer

    return FirstBlockTransformer if one_block else Transformer


_NORM_SWITCHES = {  # norms that they matter to, what these are called
    "bn": ("BatchNorm", ("bn_momentum", "track_running_stats")),
    "un": ("Unified Normalization", ("un_warm_up",)),
    "prepbn": ("PRepBN", ("prepbn_share",)),
    "dyt derf": ("dynamic tanh or erf", ("dyt_alpha",)),
}
ARTICLE: Mapping[str, _Builder] = {"vit": vit, "vitbnffn": vitbnffn, "vitbn": vitbn}
DEFECTS: Mapping[str, _Builder] = {
    "vit_oneblock": partial(vit, one_block=True),
    "vitbnffn_oneblock": partial(vitbnffn, one_block=True),
    "vitbn_oneblock": partial(vitbn, one_block=True),
}
"""The same as the article ran its BatchNorm models, labelled: one block of those that are built."""

_ONE_BLOCK = "one block runs"
_ARTICLE_NORMS = {
    "vitbnffn": "LN; BN in the FFN",
    "vitbn": "BN everywhere",
    "vit_oneblock": f"LN everywhere; {_ONE_BLOCK}",
    "vitbnffn_oneblock": f"LN; BN in the FFN; {_ONE_BLOCK}",
    "vitbn_oneblock": f"BN everywhere; {_ONE_BLOCK}",
}
_NORM_WORDS = {
    "ln": "LN everywhere",
    "bn": "BN everywhere",
    "lnbn": "LN; BN before the FFN",
    "prepbn": "LN, turning into RepBN",
}
_SUFFIX_WORDS = {"ffnbn": "BN in the FFN", "wn": "weight norm", "relu6": "ReLU6"}


def variant(name: str) -> Variant:
    """The variant called `name`. Raises InputError, suggesting the nearest name."""
    parts = parse_name(name, [*ARTICLE, *DEFECTS, *BACKBONES], backbones.is_timm)
    if parts.backbone in _ARTICLE_NORMS and (parts.norm != "ln" or parts.hidden_bn):
        raise InputError(
            f"{parts.backbone} says already which norms it has; write "
            f"{ModelName('vit', parts.norm, True, parts.weight_norm, parts.relu6)}"
        )
    return Variant(
        name=str(parts),
        norms=_norms(parts),
        uses_batch_norm=parts.uses_batch_norm or parts.backbone.startswith("vitbn"),
        switches=ViTSwitches if parts.backbone in {**ARTICLE, **DEFECTS} else ZooSwitches,
        parts=parts,
    )


def stored_switches(name: str, values: Mapping[str, SwitchValue]) -> Switches:
    """The switches of the variant called `name` as they, or fewer of them, were stored.

    A name of timm's is taken on trust: to ask timm takes seconds, and it was asked when it was
    stored.
    """
    switches = ZooSwitches if name.startswith(TIMM) else variant(name).switches
    return switches(**values)  # type: ignore[arg-type]  # written by asdict


def all_names() -> list[str]:
    """Every backbone with every norm, and with each suffix that the sources use."""
    names = [*ARTICLE, *DEFECTS]
    names += [str(ModelName("vit", norm)) for norm in NORMS if norm != "ln"]
    for backbone in BACKBONES:
        names += [str(ModelName(backbone, norm)) for norm in NORMS]
        names += [f"{backbone}_{suffixes}" for suffixes in SOURCES]
    return names


SOURCES = ("bn_ffnbn", "bn_relu6", "bn_wn", "bn_wn_relu6", "lnbn_wn", "lnbn_relu6", "lnbn_wn_relu6")
"""Combinations that the sources train: BN-ViT's hidden BatchNorm, the blog's tables."""


def _norms(parts: ModelName) -> str:
    words = [_ARTICLE_NORMS.get(parts.backbone) or _NORM_WORDS.get(parts.norm, NORMS[parts.norm])]
    suffixes = {"ffnbn": parts.hidden_bn, "wn": parts.weight_norm, "relu6": parts.relu6}
    return "; ".join(words + [_SUFFIX_WORDS[name] for name, is_on in suffixes.items() if is_on])
