"""States of runs that earlier versions saved, as this version saves them."""

from dataclasses import asdict, fields
from typing import Any

from models.registry import stored_switches
from objectives.recipe import InitialWeights, TrainConfig
from objectives.recipes import stored_recipe

_UNKNOWN_BEFORE: dict[str, Any] = {
    "scaler": {},
    "ema": None,
    "is_frozen": False,
    "peak_bytes": None,
    "processes": 1,
}


def as_saved_now(state: dict[str, Any]) -> dict[str, Any]:
    """`state` with what it lacks: the fields of later configs are as they were without them."""
    config = state.get("config")
    known = {one.name for one in fields(TrainConfig)}
    if not isinstance(config, dict) or "model" not in config or not config.keys() <= known:
        return state  # which no version up to this saved
    values = dict(config)
    values["switches"] = stored_switches(values["model"], values["switches"])
    values["recipe"] = stored_recipe(values["recipe"])
    if values["initial"] is not None:
        values["initial"] = InitialWeights(**values["initial"])
    return {**_UNKNOWN_BEFORE, **state, "config": asdict(TrainConfig(**values))}
