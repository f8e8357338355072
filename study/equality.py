"""Whether studies may be compared: the same data, space, budget, precision and depth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from objectives.contenders import SAME_MACS
from objectives.recipes import Recipe, field_types
from study.errors import UnequalError
from study.identity import StudyIdentity
from study.results import StudyResult
from study.speeds import Speeds
from study.words import counted, ranges

_Shown = Callable[[StudyIdentity], str]

_DATA: dict[str, _Shown] = {
    "data": lambda of: f"{of.dataset} ({of.data_checksum[:8]})",
    "split": lambda of: (
        f"{of.train_images:,} training and {of.validation_images:,} validation "
        f"images, split {of.split_seed}, {of.trained_on}"
    ),
    "image size": lambda of: str(of.image_size or "as it is"),
}
_RECIPE: dict[str, _Shown] = {
    "experiment": lambda of: of.kind,
    "budget": lambda of: counted(of.epochs, "epoch"),
    "precision": lambda of: of.precision,
    "recipe": lambda of: str(_recipe(of)),
    "initial weights": lambda of: "random" if of.weights is None else "trained",
}
_SEARCH: dict[str, _Shown] = {
    "space": lambda of: (
        f"lr {of.lr[0]:g}–{of.lr[1]:g}, batch size {of.batch_size[0]}–{of.batch_size[1]}"
        + "".join(f", {one}" for one in of.others)
    ),
    "search": lambda of: f"{of.sampler}, {of.pruner}",
}
_GRID: dict[str, _Shown] = {
    "values": lambda of: ", ".join(f"{lr:g} with {size}" for lr, size in of.configurations),
}
_BISECTION: dict[str, _Shown] = {
    "space": lambda of: f"lr {of.lr[0]:g}–{of.lr[1]:g}",
    "batch sizes": lambda of: ", ".join(map(str, of.batch_sizes)),
    "learning rates": lambda of: f"{of.grid} and {counted(of.steps, 'step')}",
}


def _recipe(of: StudyIdentity) -> Recipe:
    """How a study trains, by what its teacher is, not by where it lies."""
    recipe = of.recipe.of_training
    return recipe if of.teacher_checksum is None else replace(recipe, teacher=of.teacher_checksum)


def refuse(found: Sequence[str]) -> None:
    """Raise UnequalError where studies differ in what a comparison must hold fixed."""
    if found:
        raise UnequalError(
            f"{'; '.join(found)}. --allow-unequal compares them all the same, and every table "
            "says so"
        )


def inequalities(
    results: Sequence[StudyResult], sources: Mapping[str, StudyResult]
) -> tuple[str, ...]:
    """In what each study differs from the one before it, a line each; empty: they are alike.

    `sources` are the searches that fits took their values from, by name: they must be alike, too.
    """
    found: dict[str, None] = {}
    for one, other in pairwise([_without_tuned(each, sources) for each in results]):
        found |= dict.fromkeys(_differences(one, other))
        if one.source is not None and other.source is not None:
            found |= dict.fromkeys(_tuned_differently(one, other, sources))
        elif (one.source is None) != (other.source is None):
            found[f"{one.name} and {other.name}: only one is the best of a search"] = None
    return tuple(found)


def _without_tuned(result: StudyResult, sources: Mapping[str, StudyResult]) -> StudyResult:
    """A fit without the fields of its recipe that its search has chosen: these may differ."""
    source = sources.get(result.source or "")
    if source is None:
        return result
    names = {one.name for one in source.identity.others} & field_types().keys()
    usual = {name: getattr(source.identity.recipe, name) for name in names}
    recipe = replace(result.identity.recipe, **usual)
    return replace(result, identity=replace(result.identity, recipe=recipe))


def unlike_speeds(results: Sequence[StudyResult], speeds: Speeds | None) -> Iterator[str]:
    """In what measured speeds are not those of the studies that they are shown beside."""
    if speeds is None:
        return
    first = results[0].identity
    for what, theirs, mine in (
        ("data", speeds.dataset, first.dataset),
        ("precision", speeds.precision, first.precision),
    ):
        if theirs != mine:
            yield f"the speeds and {results[0].name} differ in {what}: {theirs}, and {mine}"
    names = dict.fromkeys(result.identity.model for result in results)
    if missing := [name for name in names if name not in speeds.models]:
        yield f"the speeds are not those of {', '.join(missing)}"


def unlike_conditions(results: Sequence[StudyResult]) -> tuple[str, ...]:
    """In what models that are only listed together differ: data, budget, precision or recipe."""
    return tuple(
        line for one, other in pairwise(results) for line in _differing(one, other, _DATA | _RECIPE)
    )


def _differences(one: StudyResult, other: StudyResult) -> Iterator[str]:
    kinds = {"search": _SEARCH, "sweep": _GRID, "fit": {}, "stability": _BISECTION}
    # The tuned values of two fits may differ; values given by hand must be the same.
    own = _GRID if one.identity.kind == "fit" and one.source is None else kinds[one.identity.kind]
    yield from _differing(one, other, _DATA | _RECIPE | own)
    yield from _differing_runs(one, other)
    yield from _differing_depth(one, other)
    yield from _divided(one)
    yield from _divided(other)


def _differing(one: StudyResult, other: StudyResult, told: dict[str, _Shown]) -> Iterator[str]:
    for what, shown in told.items():
        mine, theirs = shown(one.identity), shown(other.identity)
        if mine != theirs:
            yield f"{one.name} and {other.name} differ in {what}: {mine}, and {theirs}"


def _differing_runs(one: StudyResult, other: StudyResult) -> Iterator[str]:
    if one.identity.is_planned and other.identity.is_planned:
        seeds = [ranges({run.seed for run in each.runs}) for each in (one, other)]
        if seeds[0] != seeds[1]:
            yield f"{one.name} and {other.name} differ in seeds: {seeds[0]}, and {seeds[1]}"
    elif len(one.seen.counted) != len(other.seen.counted):
        yield (
            f"{one.name} and {other.name} differ in trials: {len(one.seen.counted)}, and "
            f"{len(other.seen.counted)}"
        )


def _differing_depth(one: StudyResult, other: StudyResult) -> Iterator[str]:
    """As each run counted on its own model."""
    mine, theirs = (each.executed for each in (one, other))
    if mine is None or theirs is None:
        return
    if mine[0] != theirs[0]:
        yield (
            f"{one.name} executes {counted(mine[0], 'block')}, {other.name} "
            f"{counted(theirs[0], 'block')}"
        )
    elif abs(theirs[1] / mine[1] - 1) > SAME_MACS:
        yield (
            f"{one.name} takes {mine[1] / 1e9:.4g} GMACs for an image, {other.name} "
            f"{theirs[1] / 1e9:.4g}"
        )


def _divided(result: StudyResult) -> Iterator[str]:
    """Whether BatchNorm saw less than the batch, as several processes each normalised a part."""
    identity = result.identity
    processes = {run.computed.get("processes", 1) for run in result.runs if run.computed}
    if max(processes, default=1) > 1 and identity.uses_batch_norm and not identity.recipe.sync_bn:
        told = ranges(processes)
        yield (
            f"{result.name} was trained by {told} processes at once, whose BatchNorms each saw a "
            "part of the batch, without SyncBN"
        )


def _tuned_differently(
    one: StudyResult, other: StudyResult, sources: Mapping[str, StudyResult]
) -> Iterator[str]:
    missing = [each.name for each in (one, other) if (each.source or "") not in sources]
    if missing:
        yield (
            f"it cannot be told how {' and '.join(missing)} was tuned: the search is gone, or has "
            "trials left"
        )
        return
    found = [sources[each.source or ""] for each in (one, other)]
    yield from _differing(found[0], found[1], _DATA | _RECIPE | _SEARCH)
    trials = [_tuned_by(each, it) for each, it in zip((one, other), found, strict=True)]
    if trials[0] != trials[1]:
        yield (
            f"{one.name} and {other.name} differ in the trials that they were the best of: "
            f"{trials[0]}, and {trials[1]}"
        )


def _tuned_by(fit: StudyResult, search: StudyResult) -> int:
    """Trials of its search when the fit was made; it may have been extended since."""
    return fit.source_trials or len(search.seen.counted)
