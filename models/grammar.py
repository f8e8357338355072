"""Names of models: `<backbone>[_<norm>][_ffnbn][_wn][_relu6]`."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from models.errors import InputError
from models.switches import nearest

NORMS = {
    "ln": "LayerNorm",
    "bn": "BatchNorm",
    "lnbn": "LayerNorm before attention, BatchNorm before the feed-forward",
    "rms": "RMSNorm",
    "repbn": "RepBN: BN(x) + α·x",
    "prepbn": "PRepBN: from LayerNorm to RepBN",
    "un": "Unified Normalization",
    "dyt": "dynamic tanh",
    "derf": "dynamic erf",
}
SUFFIXES = {
    "ffnbn": "BatchNorm on the hidden features of the feed-forward",
    "wn": "weight norm on the blocks' projections",
    "relu6": "ReLU6 in place of the feed-forward's GELU",
}
TIMM = "timm:"
_ORDER = "norm, ffnbn, wn, relu6"


@dataclass(frozen=True)
class ModelName:
    """A name taken apart."""

    backbone: str
    norm: str = "ln"
    hidden_bn: bool = False
    weight_norm: bool = False
    relu6: bool = False

    def __str__(self) -> str:
        norm = [] if self.norm == "ln" else [self.norm]
        given = (("ffnbn", self.hidden_bn), ("wn", self.weight_norm), ("relu6", self.relu6))
        return "_".join([self.backbone, *norm, *(name for name, is_on in given if is_on)])

    @property
    def uses_batch_norm(self) -> bool:
        """Whether a batch of one image cannot be trained."""
        return self.hidden_bn or self.norm in ("bn", "lnbn", "repbn", "prepbn", "un")


def parse_name(name: str, backbones: Collection[str], is_timm: Callable[[str], bool]) -> ModelName:
    """`name` taken apart; `is_timm` knows timm's own names.

    Raises InputError for an unknown name, suggesting the nearest.
    """
    if name.startswith(TIMM):
        parts = name.split("_")
        kept = len(parts)
        while kept > 1 and not is_timm("_".join(parts[:kept]).removeprefix(TIMM)):
            kept -= 1
        backbone = "_".join(parts[:kept])
        if not is_timm(backbone.removeprefix(TIMM)):
            raise InputError(
                f"timm has no model '{name.removeprefix(TIMM)}'; see timm.list_models()"
            )
        return _with_suffixes(name, backbone)
    fitting = [known for known in backbones if name == known or name.startswith(f"{known}_")]
    if not fitting:
        raise InputError(f"unknown model '{name}'{nearest(name, list(backbones))}")
    return _with_suffixes(name, max(fitting, key=len))


def _with_suffixes(name: str, backbone: str) -> ModelName:
    given = [part for part in name.removeprefix(backbone).split("_") if part]
    norms = [part for part in given if part in NORMS]
    if unknown := [part for part in given if part not in NORMS and part not in SUFFIXES]:
        raise InputError(
            f"unknown model '{name}': {backbone} has no '{unknown[0]}'"
            f"{nearest(unknown[0], [*NORMS, *SUFFIXES])}"
        )
    if len(set(given)) < len(given) or len(norms) > 1:
        raise InputError(f"unknown model '{name}': one norm, and each suffix once")
    norm = norms[0] if norms else "ln"
    found = ModelName(backbone, norm, "ffnbn" in given, "wn" in given, "relu6" in given)
    if [*norms, *(suffix for suffix in SUFFIXES if suffix in given)] != given:
        raise InputError(f"unknown model '{name}': write {found}; the order is {_ORDER}")
    return found
