"""What `reproduce` is asked for: a source, parts of it, and the budget of each."""

import shlex
from dataclasses import dataclass, fields
from typing import Literal, get_args

from models.errors import InputError
from models.switches import Switches, ViTSwitches, nearest, non_default
from study.article_claims import LRS, article_claims
from study.blog_claims import blog_claims
from study.claims import Claim, Part
from study.settings import shown_address
from study.tiny_imagenet_claims import tiny_imagenet_claims

Source = Literal["article", "blog", "tiny-imagenet"]

SOURCE_PARTS: dict[Source, tuple[Part, ...]] = {
    "article": ("speed", "denormals", "experiment1", "experiment2", "dropout"),
    "blog": ("counts", "inference"),
    "tiny-imagenet": ("counts",),
}
"""Races come first, as they want an idle machine."""

ON_REQUEST: tuple[Part, ...] = ("dropout",)  # run only where they are named, or all are
_TOLD_ELSEWHERE = ("source", "parts", "switches", "lrs")  # than by their names and values
CPU_BATCH = 8  # images of the blog's races on a CPU, unless it is said


@dataclass(frozen=True)
class Reproduction:
    """A source to be reproduced, and how."""

    source: Source
    parts: tuple[Part, ...]
    epochs: int = 30  # of sweeps and fits
    seeds: int = 3
    trials: int = 20  # of searches
    lrs: tuple[float, ...] = LRS  # of experiment 1: some of the article's
    train_images: int | None = None
    minutes: float = 2.0  # of one race, at most
    batch_size: int | None = None  # of the blog's inference; None: as published, on a CPU smaller
    denormal_epochs: float = 1.0  # trained before the races of denormals
    dataset: str = "mnist"
    switches: Switches | None = None
    device: str = "auto"
    study: str | None = None  # what the names of studies begin with
    storage: str | None = None  # as on the command line, to be said again
    mlflow: str | None = None

    @property
    def name(self) -> str:
        """What the names of its studies and races begin with."""
        return self.study or f"reproduce-{self.source}"

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the data."""
        for option in ("epochs", "seeds", "trials"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option} {getattr(self, option)} must be at least 1")
        if self.denormal_epochs <= 0:
            raise InputError(f"--denormal-epochs {self.denormal_epochs:g} must be above 0")
        if self.lrs != LRS and self.source != "article":
            raise InputError("--lr is of the article's experiment 1")
        if unknown := [lr for lr in self.lrs if lr not in LRS]:
            known = ", ".join(f"{lr:g}" for lr in LRS)
            raise InputError(f"--lr {unknown[0]:g} is none of the article's: {known}")
        if self.batch_size is not None and self.batch_size < 2:
            raise InputError("--batch-size must be 2 or more")
        if self.switches is not None and not isinstance(self.switches, ViTSwitches):
            raise InputError("--set is about the article's models; leave it out")

    def command(self, *parts: Part) -> str:
        """The command line that runs these parts with the same budget."""
        words = ["bnvit-study", "reproduce", self.source, "--only", ",".join(parts)]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _TOLD_ELSEWHERE and value != field.default:
                shown = shown_address(value) if field.name in ("storage", "mlflow") else str(value)
                words += [f"--{field.name.replace('_', '-')}", shown]
        if self.lrs != LRS and "experiment1" in parts:
            words += ["--lr", ",".join(f"{lr:g}" for lr in self.lrs)]
        for name, value in (non_default(self.switches) if self.switches else {}).items():
            words += ["--set", f"{name}={value}"]
        return shlex.join(words)


def claims_of(source: Source) -> tuple[Claim, ...]:
    """All that a source claims."""
    made = {
        "article": article_claims,
        "blog": blog_claims,
        "tiny-imagenet": tiny_imagenet_claims,
    }
    return made[source]()


def parse_source(text: str) -> Source:
    """The source of that name; raises InputError."""
    if text not in get_args(Source):
        raise InputError(f"unknown source '{text}'{nearest(text, list(SOURCE_PARTS))}")
    return text  # type: ignore[return-value]


def parse_parts(source: Source, only: str | None, everything: bool) -> tuple[Part, ...]:
    """The parts to run, in their order; raises InputError."""
    known = SOURCE_PARTS[source]
    if only is None:
        return tuple(part for part in known if everything or part not in ON_REQUEST)
    if everything:
        raise InputError("--all is all parts; leave out --only")
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"unknown part '{name}' of {source}; known: {', '.join(known)}")
    return tuple(part for part in known if part in names)
