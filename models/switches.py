"""What can be set on a model: frozen values, checked when they are made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Literal, get_args, get_origin, get_type_hints

from models.errors import InputError

SwitchValue = bool | int | float | str


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


@dataclass(frozen=True)
class ViTSwitches:
    """The switches of the article's family, with the article's values as defaults."""

    patch_size: int = 7  # pixels
    dim: int = 64
    depth: int = 6  # blocks
    heads: int = 8
    dim_head: int = 64
    mlp_dim: int = 128
    pool: Literal["cls", "mean"] = "cls"
    pos_emb: Literal["learn", "pe1d"] = "learn"
    dropout: float = 0.0
    emb_dropout: float = 0.0
    bn_momentum: float = 0.1  # torch's convention: weight of the newest batch
    track_running_stats: bool = True

    def __post_init__(self) -> None:
        for name in ("patch_size", "dim", "depth", "heads", "dim_head", "mlp_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("dropout", "emb_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0.0 < self.bn_momentum <= 1.0:
            raise InputError(f"bn_momentum={self.bn_momentum} must lie in (0, 1]")
        if self.pos_emb == "pe1d" and self.dim % 2:
            raise InputError(f"pos_emb=pe1d needs an even dim, not {self.dim}")


def parse_switches(texts: Mapping[str, str]) -> ViTSwitches:
    """Switches from `name=value` texts.

    Raises InputError for an unknown name (with the nearest known one) or an unreadable value.
    """
    hints = get_type_hints(ViTSwitches)
    values: dict[str, SwitchValue] = {}
    for name, text in texts.items():
        if name not in hints:
            raise InputError(f"unknown switch '{name}'{nearest(name, list(hints))}")
        values[name] = _parse(name, text, hints[name])
    return ViTSwitches(**values)  # type: ignore[arg-type]  # each value was parsed by its type


def non_default(switches: ViTSwitches) -> dict[str, SwitchValue]:
    """The switches that differ from the article's, for names and tables."""
    defaults = {field.name: field.default for field in fields(ViTSwitches)}
    return {name: value for name, value in asdict(switches).items() if value != defaults[name]}


def nearest(name: str, known: list[str]) -> str:
    """The end of an error line: the nearest known name, or all of them where none is near."""
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _parse(name: str, text: str, kind: object) -> SwitchValue:
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        if text not in choices:
            raise InputError(f"{name}={text} is not one of {', '.join(choices)}")
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
