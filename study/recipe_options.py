"""What the command line says of training: a preset, a file, NAME=VALUE texts, what is searched."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from models.errors import InputError
from models.registry import variant
from models.switches import Switches, non_default, parse_values
from objectives.recipes import Preset, Recipe, field_types, preset
from objectives.searched import Searched, searched
from study.model_options import pair

FILE_RECIPE = "recipe"  # key of a file that names its preset


@dataclass(frozen=True)
class Training:
    """A recipe with the switches of the model that go with it."""

    recipe: Recipe
    switches: Switches | None  # None: the model's defaults
    preset: Preset

    def epochs(self, given: int | None, usual: int) -> int:
        """Epochs: as given, else the preset's, else the usual."""
        return next(e for e in (given, self.preset.epochs, usual) if e is not None)

    def batch_size(self, given: str | None, usual: int) -> str:
        """The text of --batch-size: as given, else the preset's, else the usual."""
        return given or str(self.preset.batch_size or usual)

    def image_size(self, given: int | None) -> int | None:
        """Pixels: as given, else the preset's; None: as the data set has it."""
        return self.preset.image_size if given is None else given


def training_of(
    model: str,
    recipe: str | None,
    config: Path | None,
    texts: list[str] | None,
    teacher: str | None = None,
) -> Training:
    """The recipe called `recipe` with what a TOML file and then NAME=VALUE texts say instead.

    A name is a field of the recipe or a switch of the model called `model`. A `teacher` that
    nothing more is said of teaches as DeiT's does: hard. Raises InputError.
    """
    given = _read(config) if config is not None else {}
    named = given.pop(FILE_RECIPE, None)
    chosen = preset(recipe or named or "article")
    given |= dict(pair(text) for text in texts or ())
    if teacher is not None:
        given["teacher"] = teacher
    if "teacher" in given and chosen.recipe.distillation == "none":
        given = {"distillation": "hard", **given}
    kind = variant(model).switches
    hints, own = get_type_hints(kind), field_types()
    for name in given:
        if name not in hints and name not in own:
            raise InputError(f"unknown recipe field or switch '{name}'{_hint(name, own, hints)}")
    of_recipe = {name: text for name, text in given.items() if name in own}
    of_model = {name: text for name, text in given.items() if name not in own}
    values = {name: value for name, value in chosen.switches.items() if name in hints}
    values |= parse_values(of_model, hints, "switch")
    return Training(
        replace(chosen.recipe, **parse_values(of_recipe, own, "recipe field")),  # type: ignore[arg-type]
        kind(**values) if values else None,  # type: ignore[arg-type]
        chosen,
    )


def searched_fields(model: str, texts: list[str] | None) -> tuple[Searched, ...]:
    """What the texts of --search say of fields of the recipe and switches of the model.

    Raises InputError.
    """
    kinds = {**field_types(), **get_type_hints(variant(model).switches)}
    found = tuple(searched(text, kinds) for text in texts or ())
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--search names {twice[0]} twice; give one range")
    return found


def training_words(recipe: Recipe, switches: Switches | None) -> list[str]:
    """The options that ask for a recipe and switches, as far as they differ from the usual."""
    words = [] if recipe.name == "article" else ["--recipe", recipe.name]
    usual = preset(recipe.name).switches
    given = asdict(switches) if switches else {}
    changed = non_default(switches) if switches else {}
    changed |= {name: given[name] for name in usual if name in given}
    changed = {name: value for name, value in changed.items() if usual.get(name) != value}
    for name, value in {**recipe.changes, **changed}.items():
        words += ["--teacher", str(value)] if name == "teacher" else ["--set", f"{name}={value}"]
    return words


def _hint(name: str, fields: Mapping[str, object], switches: Mapping[str, object]) -> str:
    """The nearest of both, else where the fields are told and which switches there are."""
    close = get_close_matches(name.lower(), [*fields, *switches], n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; 'bnvit-study recipes' lists the fields; switches: {', '.join(switches)}"


def _read(path: Path) -> dict[str, str]:
    """The values of a TOML file as texts."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--config {path} cannot be read ({reason})") from error
    return {name: _text(path, name, value) for name, value in found.items()}


def _text(path: Path, name: str, value: Any) -> str:
    if isinstance(value, Mapping | list):
        raise InputError(f"--config {path}: {name} must be one value; write NAME = VALUE lines")
    return str(value)
