"""A run in a few characters, as the DeiT-BN blog's table tells it."""

from objectives.metrics import Diverged


def run_notation(accuracy: float | None, diverged: Diverged | None, train_images: int) -> str:
    """How a run ended: "80.25", or the best before it stopped being finite, "80.7 @ 234, NaN".

    Accuracies are shares and told in per cent, with the epoch after @; "NaN (epoch 8)" where no
    rung was reached before, with the epoch in which the step began, counted from 1. Empty where
    there is no accuracy. `train_images` are those of an epoch.
    """
    if diverged is None:
        return "" if accuracy is None else _per_cent(accuracy)
    if diverged.best_epoch is None:
        before = diverged.images_seen * (diverged.step - 1) // diverged.step
        return f"NaN (epoch {before // train_images + 1})"
    return f"{_per_cent(diverged.best_val_accuracy)} @ {diverged.best_epoch:.4g}, NaN"


def _per_cent(share: float) -> str:
    return f"{round(100 * share, 2):g}"
