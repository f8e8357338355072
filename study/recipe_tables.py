"""Recipes as tables for the command line."""

from collections.abc import Mapping
from dataclasses import asdict

from rich.table import Table

from objectives.recipes import ARTICLE, PRESETS, Preset, choices, field_types
from study.tables import plain_table


def recipes_table() -> Table:
    """The presets, with what of each is not the article's."""
    table = plain_table("recipe")
    table.add_column("beside the article's")
    for name, one in PRESETS.items():
        told = {**one.recipe.told, **one.switches}
        brought = {"batch size": one.batch_size, "epochs": one.epochs, "pixels": one.image_size}
        told |= {key: value for key, value in brought.items() if value is not None}
        table.add_row(name, _words(told))
    return table


def fields_table(chosen: Preset) -> Table:
    """Every field of a preset with its value, the article's, and what it may be."""
    table = plain_table("field", "value", "article", "may be")
    mine, usual = asdict(chosen.recipe), asdict(ARTICLE)
    for name, kind in field_types().items():
        table.add_row(name, _short(mine[name]), _short(usual[name]), _may_be(kind))
    return table


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    """A value of a preset; None is one that it leaves open."""
    return "to be given" if value is None else _short(value)


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _may_be(kind: object) -> str:
    if known := choices(kind):
        return ", ".join(known)
    return getattr(kind, "__name__", str(kind))
