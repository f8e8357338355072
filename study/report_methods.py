"""What stands at the end of a report on studies: how they were judged, and what ran."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from objectives.recipes import ARTICLE, PRESETS
from study.identity import StudyIdentity
from study.report import Section
from study.results import StudyResult
from study.tabular import Tabular
from study.words import counted

_COLUMNS = (
    "study",
    "model",
    "parameters",
    "trained",
    "GMACs",
    "blocks executed",
    "device",
    "computed",
)


def how_judged(identity: StudyIdentity) -> tuple[str, str]:
    """On which data a study was trained and judged, and by which recipe."""
    return (
        f"Data: {identity.dataset}, checksum {identity.data_checksum}; {identity.train_images:,} "
        f"training and {identity.validation_images:,} validation images. The test images are read "
        "once, at the end of each run, and choose nothing.",
        "BatchNorm models are judged on population statistics recalibrated over "
        f"{identity.recalibration_images:,} training images in one pass (Wu & Johnson 2021). "
        f"Recipe: {_recipe(identity)}; {identity.precision}.",
    )


def _recipe(identity: StudyIdentity) -> str:
    """The recipe by its fields: a preset's source says more than is always taken from it."""
    recipe = identity.recipe
    if recipe == ARTICLE:
        return f"{recipe.name}, i.e. {PRESETS[recipe.name].source}"
    told = ", ".join(f"{name} {value}" for name, value in recipe.told.items())
    return f"{recipe.name} (after {PRESETS[recipe.name].source}): {told or 'Adam, constant lr'}"


def _how(computed: Mapping[str, Any]) -> str:
    """In which ways a run was computed, and by how many processes if not by one."""
    processes = computed.get("processes", 1)
    return str(computed["execution"]) + (f", {processes} processes" if processes > 1 else "")


def environment(results: Sequence[StudyResult]) -> Section:
    """What ran of each study and on what, with the versions that the first began with."""
    table = Tabular(
        "environment",
        "What ran, counted on the models while they did",
        _COLUMNS,
        tuple(tuple(_row(result)) for result in results),
        left=2,
    )
    packages = ", ".join(f"{name} {version}" for name, version in results[0].versions.items())
    return Section("Environment", (table, f"Begun with {packages}."))


def _row(result: StudyResult) -> Iterator[str]:
    computed = [run.computed for run in result.runs if run.computed]
    first = computed[0] if computed else {}
    devices = (f"{one['device']}, {counted(one['threads'], 'thread')}" for one in computed)
    yield result.name
    yield result.model
    yield f"{first.get('parameters', 0):,}"
    yield f"{first['trained_parameters']:,}" if "trained_parameters" in first else ""
    yield f"{first.get('multiply_adds', 0) / 1e9:.4g}"
    yield str(first.get("blocks_executed", ""))
    yield "; ".join(dict.fromkeys(devices))
    yield "; ".join(dict.fromkeys(map(_how, computed)))
