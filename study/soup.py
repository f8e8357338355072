"""A soup of trained models: made, judged, written as a file that says what it is."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.errors import InputError
from objectives.card import Card
from objectives.hardware import device_label
from objectives.images import Split
from objectives.soup import Judge, Member, Soup, State, greedy_soup, uniform_soup
from objectives.soup_members import check_members, common_initialisation
from study.environment import device_of
from study.inspect_subjects import Found
from study.settings import Settings
from study.soup_images import SoupImages, soup_images
from study.soup_sources import found_members
from study.weights_file import check_weights_file, write_weights


@dataclass(frozen=True)
class Asked:
    """What a soup is to be made of, and how."""

    targets: tuple[str, ...]
    greedy: bool = False
    any_initialisation: bool = False
    dataset: str | None = None  # None: what suits the members
    image_size: int | None = None  # pixels; None: as the data set has it
    device: str = "auto"
    test: bool = False  # read the test images once, at the end
    output: Path | None = None  # None: named after the study

    @property
    def path(self) -> Path:
        """The file to be written."""
        name = self.targets[0] if len(self.targets) == 1 else ""
        stem = re.sub(r"[^\w.-]", "-", f"{name}-soup".strip("-"))
        return self.output or Path(f"{stem}.safetensors")

    def check(self) -> None:
        """Raise InputError where the file would not be what it seems, or replaces a member."""
        check_weights_file(self.path)
        taken = [Path(target) for target in self.targets]
        if self.path.exists() and any(one.exists() and self.path.samefile(one) for one in taken):
            raise InputError(f"{self.path} is a member of the soup; give another with --output")


@dataclass(frozen=True)
class Tested:
    """Accuracies on the test images."""

    soup: float
    best_member: float


@dataclass(frozen=True)
class Made:
    """A soup that was made and written."""

    kind: str  # greedy or uniform
    soup: Soup
    best: Member  # of all that might have gone in
    told: Card
    images: SoupImages
    device: str
    tested: Tested | None
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "kind": self.kind,
            "model": self.told.model,
            "initialisation": self.told.initialisation,
            "dataset": self.images.dataset,
            "validation_images": len(self.images.validation),
            "device": self.device,
            "members": [vars(step) for step in self.soup.steps],
            "kept": len(self.soup.members),
            "val_accuracy": self.soup.val_accuracy,
            "best_member": self.best.name,
            "best_member_val_accuracy": self.best.val_accuracy,
            "test": None if self.tested is None else vars(self.tested),
            "file": str(self.path),
        }


def make_soup(asked: Asked, settings: Settings) -> Made:
    """Find the members, average them, write the soup.

    The file appears whole and at the end. Raises InputError where the members cannot be had or do
    not go together.
    """
    asked.check()
    device = device_of(asked.device)
    found = found_members(asked.targets, settings)
    cards = {one.target: one.trained[0] for one in found if one.trained is not None}
    check_members(cards, asked.any_initialisation)
    images = soup_images(found, asked.dataset, asked.image_size, settings, device)
    told = replace(next(iter(cards.values())), initialisation=common_initialisation(cards))
    pixels = images.population.all_pixels()
    judge = Judge(told.build().to(device), pixels, images.validation, told.precision)
    members = [judge.member(one.target, _state(one)) for one in found]
    make = greedy_soup if asked.greedy else uniform_soup
    soup = make(judge, members)
    best = max(members, key=lambda one: one.val_accuracy)
    tested = _tested(judge, images.test(), soup.state, best.state) if asked.test else None
    write_weights(soup.state, told, asked.path)
    kind = "greedy" if asked.greedy else "uniform"
    return Made(kind, soup, best, told, images, device_label(device), tested, asked.path)


def _state(one: Found) -> State:
    assert one.trained is not None
    return one.trained[1].state_dict()


def _tested(judge: Judge, test: Split, soup: State, best: State) -> Tested:
    last = replace(judge, split=test)
    return Tested(*(last.judged(state)[1] for state in (soup, best)))
