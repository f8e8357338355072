"""What of a recipe does not go with the rest that is asked for, said before anything is begun."""

from typing import TYPE_CHECKING

from models.errors import InputError
from models.registry import variant

if TYPE_CHECKING:
    from study.request import Request


def check_training(request: "Request") -> None:
    """Raise InputError where the recipe does not fit the model, the budget or the batch sizes."""
    recipe, chosen = request.recipe, variant(request.model)
    recipe.check()
    smallest, _ = request.space.batch_size
    about_bn = {"nbs": recipe.nbs, "sync_bn": recipe.sync_bn, "freeze_bn": recipe.freeze_bn}
    given = [name for name, value in about_bn.items() if value]
    if given and not chosen.has_batch_norm:
        raise InputError(f"{chosen.name} has no BatchNorm; leave out --set {given[0]}")
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
    if recipe.accumulate > smallest:
        raise InputError(
            f"accumulate={recipe.accumulate} makes micro-batches of a batch of {smallest}; it "
            "must have as many images at least"
        )
    if recipe.train == "head" and request.weights is None:
        raise InputError(
            "train=head is a linear probe of trained weights; name them with --weights, or --set "
            "train=all"
        )
    if request.target is not None and not 0.0 < request.target <= 1.0:
        raise InputError(f"--target {request.target:g} must be an accuracy in (0, 1], as 0.97")


def notes(request: "Request") -> list[str]:
    """What is done where a recipe leaves a choice, a line each."""
    recipe, (first, last) = request.recipe, request.space.batch_size
    found = []
    if recipe.nbs is not None and (first != last or first % recipe.nbs):
        found.append(
            f"note:    where {recipe.nbs} images do not divide a batch, its last ghost batch has "
            "the rest; a batch that is smaller is one ghost batch"
        )
    if recipe.accumulate > 1 and variant(request.model).uses_batch_norm:
        found.append(
            f"note:    BatchNorm sees micro-batches, one of {recipe.accumulate} of a batch, not "
            "the batch"
        )
    if recipe.train == "head":
        found.append("note:    only the classifier is trained: a linear probe")
    return found
