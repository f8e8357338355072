"""What can be set on a model: frozen values, checked when they are made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from models.errors import InputError

SwitchValue = bool | int | float | str | None


@dataclass(frozen=True)
class ImageShape:
    """What a data set asks of a model."""

    channels: int
    size: int  # pixels along each side
    classes: int

    def patches(self, patch_size: int) -> tuple[int, int]:
        """Number of patches of an image and length of one flattened patch.

        Raises InputError where the patch does not divide the image.
        """
        if self.size % patch_size:
            raise InputError(
                f"patch_size={patch_size} does not divide the image size {self.size}; "
                f"choose one of {', '.join(map(str, _divisors(self.size)))}"
            )
        return (self.size // patch_size) ** 2, self.channels * patch_size**2

    def patch_size(self, largest: int, least_patches: int) -> int:
        """The largest patch up to `largest` that leaves `least_patches` along each side.

        Raises InputError where that would be single pixels of a larger image.
        """
        most = max(min(largest, self.size // least_patches), 1)
        found = max(d for d in _divisors(self.size) if d <= most)
        if found == 1 and most > 1:
            raise InputError(
                f"no patch of 2 to {most} pixels divides the image size {self.size}; choose "
                f"another --image-size, as {-(-self.size // 8) * 8}, or --set patch_size"
            )
        return found


@dataclass(frozen=True)
class NormSwitches:
    """Switches of the normalisations; each matters only to models that have the norm."""

    bn_momentum: float = 0.1  # torch's convention: weight of the newest batch
    track_running_stats: bool = True
    dyt_alpha: float = 0.5  # DyT's and Derf's α at first
    un_warm_up: int = 4_000  # steps before UN averages over steps
    prepbn_share: float = 0.8  # of the run, over which PRepBN's λ falls from 1 to 0

    def __post_init__(self) -> None:
        if not 0.0 < self.bn_momentum <= 1.0:
            raise InputError(f"bn_momentum={self.bn_momentum} must lie in (0, 1]")
        if not 0.0 < self.prepbn_share <= 1.0:
            raise InputError(f"prepbn_share={self.prepbn_share} must lie in (0, 1]")
        if not 0.0 < self.dyt_alpha < 100.0:
            raise InputError(f"dyt_alpha={self.dyt_alpha} must lie in (0, 100)")
        if self.un_warm_up < 0:
            raise InputError(f"un_warm_up={self.un_warm_up} must be at least 0")


@dataclass(frozen=True)
class ViTSwitches(NormSwitches):
    """The switches of the article's family, with the article's values as defaults."""

    patch_size: int | None = None  # pixels; None: 7 for the article's 28, else by the image size
    dim: int = 64
    depth: int = 6  # blocks
    heads: int = 8
    dim_head: int = 64
    mlp_dim: int = 128
    pool: Literal["cls", "mean"] = "cls"
    pos_emb: Literal["learn", "pe1d"] = "learn"
    dropout: float = 0.0
    emb_dropout: float = 0.0
    drop_path: float = 0.0  # share of the last block's branches that are left out of a step

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_1(self, "patch_size", "dim", "depth", "heads", "dim_head", "mlp_dim")
        _shares(self, "dropout", "emb_dropout", "drop_path")
        if self.pos_emb == "pe1d" and self.dim % 2:
            raise InputError(f"pos_emb=pe1d needs an even dim, not {self.dim}")

    def resolved(self, image: ImageShape) -> "ViTSwitches":
        """The same with all that follows from the images filled in; raises InputError."""
        patch_size = self.patch_size or image.patch_size(largest=16, least_patches=4)
        image.patches(patch_size)
        return replace(self, patch_size=patch_size)


@dataclass(frozen=True)
class ZooSwitches(NormSwitches):
    """The switches of the larger models; None: as the backbone has it, or by the image size."""

    patch_size: int | None = None  # pixels
    window_size: int | None = None  # Swin's, in patches
    dim: int | None = None  # of the first stage, for Swin
    depth: str | None = None  # blocks; for Swin of each stage, as 2,2,6,2
    heads: int | None = None  # of the first stage, for Swin
    mlp_ratio: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_1(self, "patch_size", "window_size", "dim", "heads")
        _shares(self, "dropout", "drop_path")
        if self.mlp_ratio is not None and not 0.0 < self.mlp_ratio <= 64.0:
            raise InputError(f"mlp_ratio={self.mlp_ratio} must lie in (0, 64]")
        if self.depth is not None and min(self.depths, default=0) < 1:
            raise InputError(f"depth={self.depth} must be at least 1")

    @property
    def depths(self) -> tuple[int, ...]:
        """`depth` as numbers; empty where it is not set. Raises InputError."""
        try:
            return tuple(int(part) for part in self.depth.split(",")) if self.depth else ()
        except ValueError:
            raise InputError(f"depth={self.depth} must be whole numbers, as 2,2,6,2") from None


Switches = ViTSwitches | ZooSwitches


def parse_switches(texts: Mapping[str, str], kind: type[Switches] = ViTSwitches) -> Switches:
    """Switches of a kind from `name=value` texts.

    Raises InputError for an unknown name (with the nearest known one) or an unreadable value.
    """
    return kind(**parse_values(texts, get_type_hints(kind), "switch"))  # type: ignore[arg-type]  # each value was parsed by its type


def parse_values(
    texts: Mapping[str, str], hints: Mapping[str, object], what: str
) -> dict[str, SwitchValue]:
    """Values by their types `hints`, from `name=value` texts; `what` is such a thing called.

    Raises InputError as `parse_switches` does.
    """
    values: dict[str, SwitchValue] = {}
    for name, text in texts.items():
        if name not in hints:
            raise InputError(f"unknown {what} '{name}'{nearest(name, list(hints))}")
        values[name] = _parse(name, text, hints[name])
    return values


def non_default(switches: Switches) -> dict[str, SwitchValue]:
    """The switches that differ from their defaults, for names and tables."""
    defaults = {field.name: field.default for field in fields(switches)}
    return {name: value for name, value in asdict(switches).items() if value != defaults[name]}


def nearest(name: str, known: list[str]) -> str:
    """The end of an error line: the nearest known name, or all of them where none is near."""
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _at_least_1(switches: NormSwitches, *names: str) -> None:
    for name in names:
        value = getattr(switches, name)
        if value is not None and value < 1:
            raise InputError(f"{name}={value} must be at least 1")


def _shares(switches: NormSwitches, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(switches, name) < 1.0:
            raise InputError(f"{name}={getattr(switches, name)} must lie in [0, 1)")


def _parse(name: str, text: str, kind: object) -> SwitchValue:
    if get_origin(kind) in (UnionType, Union):  # of a type, or choices, and None
        if text.lower() == "none":
            return None
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        if text not in choices:
            raise InputError(f"{name}={text} is not one of {', '.join(choices)}")
        return text
    if kind is str:
        return text
    if kind is bool:
        truth = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in truth:
            raise InputError(f"{name}={text} must be true or false")
        return truth[text.lower()]
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        article = "a whole number" if kind is int else "a number"
        raise InputError(f"{name}={text} must be {article}") from None


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
