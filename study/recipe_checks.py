"""What of a recipe does not go with the rest that is asked for, said before anything is begun."""

from collections.abc import Set
from dataclasses import replace
from typing import TYPE_CHECKING

from models.errors import InputError
from models.registry import Variant, variant
from objectives.recipes import ARTICLE, Recipe, field_types
from study.words import counted

if TYPE_CHECKING:
    from study.request import Request


def check_training(request: "Request") -> None:
    """Raise InputError where the recipe does not fit the model, the budget or the batch sizes.

    Also with any value of the fields that are searched.
    """
    _check_given(request)
    for one in request.space.others:
        for value in one.corners():
            try:
                _check_given(_with(request, one.name, value))
            except InputError as error:
                raise InputError(f"--search {one}: {error}") from None
    if request.target is not None and not 0.0 < request.target <= 1.0:
        raise InputError(f"--target {request.target:g} must be an accuracy in (0, 1], as 0.97")


def _with(request: "Request", name: str, value: object) -> "Request":
    """The request with one value of a field or switch that it searches."""
    if name in field_types():
        return replace(request, recipe=replace(request.recipe, **{name: value}))  # type: ignore[arg-type]
    switches = request.switches or variant(request.model).switches()
    return replace(request, switches=replace(switches, **{name: value}))  # type: ignore[arg-type]


def _check_given(request: "Request") -> None:
    recipe, chosen = request.recipe, variant(request.model)
    recipe.check()
    if request.switches is not None:
        chosen.check_norm_switches(request.switches)
    smallest, _ = request.space.batch_size
    about_bn = {"nbs": recipe.nbs, "sync_bn": recipe.sync_bn, "freeze_bn": recipe.freeze_bn}
    given = [name for name, value in about_bn.items() if value]
    if given and not chosen.has_batch_norm:
        raise InputError(f"{chosen.name} has no BatchNorm; leave out {given[0]}")
    searched = {one.name for one in request.space.others}
    check_of_use(recipe, searched)
    if recipe.freeze_bn > request.epochs:
        raise InputError(
            f"freeze_bn={recipe.freeze_bn:g}: BatchNorm cannot be frozen for more than the "
            f"{request.epochs} epochs of the run"
        )
    if recipe.is_mixing and smallest < 2:
        raise InputError(
            "Mixup and CutMix mix the images of a batch: batch sizes must start at 2, or --set "
            "mixup=0 --set cutmix=0"
        )
    least = 2 if chosen.uses_batch_norm else 1
    if recipe.accumulate > 1 and recipe.accumulate * least > smallest:
        raise InputError(
            f"accumulate={recipe.accumulate} divides a batch of {smallest} into micro-batches of "
            f"fewer than {counted(least, 'image')}; batch sizes must start at "
            f"{recipe.accumulate * least}"
        )
    if recipe.train == "head" and request.weights is None:
        raise InputError(
            "train=head is a linear probe of trained weights; name them with --weights, or --set "
            "train=all"
        )
    check_teaching(recipe, chosen, searched)


def check_of_use(recipe: Recipe, searched: Set[str] = frozenset()) -> None:
    """Raise InputError for a field that is set or `searched`, and that nothing reads."""
    changed = {*recipe.changes, *searched}
    for names, of, is_there in (
        (("momentum",), "optimizer=sgd", recipe.optimizer == "sgd"),
        (("magnitude", "operations"), "augment=randaugment", recipe.augment == "randaugment"),
    ):
        unread = sorted(changed.intersection(names))
        if unread and not is_there and of.partition("=")[0] not in searched:
            raise InputError(f"{unread[0]} is only read with {of}; set that, or leave it out")


def check_teaching(recipe: Recipe, chosen: Variant, searched: Set[str] = frozenset()) -> None:
    """Raise InputError where a teacher and what is said of distillation do not go together."""
    names = ("distillation", "alpha", "tau")
    said = [name for name in names if getattr(recipe, name) != getattr(ARTICLE, name)]
    said += [name for name in names if name in searched]
    if recipe.teacher is None and said:
        raise InputError(f"{said[0]} is about a teacher; name one with --teacher")
    if recipe.teacher is not None and recipe.distillation == "none":
        raise InputError("distillation=none has no use for a teacher; leave out --teacher")
    is_one_silent = recipe.teacher is not None and recipe.alpha in (0.0, 1.0)
    if is_one_silent and chosen.has_two_heads:
        raise InputError(
            f"alpha={recipe.alpha:g} would train one head of two, and both are judged; choose "
            "one between 0 and 1, or leave out --teacher"
        )


def notes(request: "Request") -> list[str]:
    """What is done where a recipe leaves a choice, a line each."""
    recipe, (first, last) = request.recipe, request.space.batch_size
    found = []
    if recipe.nbs is not None and (first != last or first % recipe.nbs):
        found.append(
            f"note:    where {recipe.nbs} images do not divide a batch, its last ghost batch has "
            "the rest, and one image alone joins the one before; a smaller batch is one ghost batch"
        )
    if recipe.accumulate > 1 and variant(request.model).uses_batch_norm:
        found.append(
            f"note:    BatchNorm sees micro-batches, one of {recipe.accumulate} of a batch, not "
            "the batch"
        )
    return [*found, *_teaching(request)]


def _teaching(request: "Request") -> list[str]:
    """Which head learns from what, where there are two or a teacher."""
    recipe, has_two_heads = request.recipe, variant(request.model).has_two_heads
    if recipe.teacher is None:
        labels = "note:    both heads learn from the labels, and their mean is judged"
        return [labels] if has_two_heads else []
    told = f"{recipe.teacher}, {recipe.distillation}, weight {recipe.alpha:g}"
    if recipe.distillation == "soft":
        told += f" at temperature {recipe.tau:g}"
    heads = "one head learns from the labels and from"
    if has_two_heads:
        heads = "the mean of both heads is judged; one learns from the labels, the other from"
    return [f"teacher: {heads} {told}"]
