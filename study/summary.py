"""What was done in a study, in words."""

from objectives.outcome import Outcome
from study.overview import Overview, TrialRow
from study.words import counted

_PHRASES = {
    Outcome.COMPLETE: "trained to the end",
    Outcome.PRUNED: "stopped early",
    Outcome.DIVERGED: "diverged",
    Outcome.OOM: "out of memory",
    "running": "running",
    "waiting": "waiting",
    Outcome.FAILED: "failed and replaced",
}


def summary(seen: Overview) -> list[str]:
    """What was done, a line each."""
    outcomes = seen.outcomes
    counts = [f"{outcomes[key]} {phrase}" for key, phrase in _PHRASES.items() if key in outcomes]
    total = len(seen.counted)
    lines = [
        f"{counted(total, 'trial')}: {', '.join(counts)}",
        f"{seen.epochs_trained:.1f} epochs' worth of images trained; "
        f"{seen.model_based} of {total} trials model-based ({seen.identity.sampler})",
    ]
    lines.append(_best_line(seen.best, seen) if seen.best else "no trial was trained to its end")
    return lines


def _best_line(best: TrialRow, seen: Overview) -> str:
    return (
        f"best: trial {best.number}, validation accuracy {best.val_accuracy:.2%} "
        f"at lr {best.lr:.3g}, batch size {best.batch_size} "
        f"({counted(best.images_seen / seen.identity.train_images, 'epoch')}, "
        f"{seen.identity.precision})"
    )
