"""What was done in a study, in words."""

from collections import Counter
from statistics import mean, stdev

from objectives.outcome import Outcome
from study.bracket import bracket, limit_words
from study.overview import Overview, TrialRow
from study.plan import Slot
from study.words import counted, shown

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
    ]
    if seen.identity.kind == "stability":
        return lines + _bisected(seen)
    return lines + (_planned(seen) if seen.identity.is_planned else _searched(seen, total))


def _searched(seen: Overview, total: int) -> list[str]:
    lines = [
        f"{seen.epochs_trained:.1f} epochs' worth of images trained; "
        f"{seen.model_based} of {total} trials model-based ({seen.identity.sampler})",
    ]
    lines.append(_best_line(seen.best, seen) if seen.best else "no trial was trained to its end")
    return lines


def _planned(seen: Overview) -> list[str]:
    """Test accuracy by configuration, over its seeds."""
    lines = []
    for lr, batch_size in seen.identity.configurations:
        rows = [row for row in seen.ended if (row.lr, row.batch_size) == (lr, batch_size)]
        tested = [row.test_accuracy for row in rows if row.test_accuracy is not None]
        lost = Counter(row.outcome for row in rows if row.test_accuracy is None)
        told = [_mean(tested)] if tested else []
        told += [f"{number} {outcome}" for outcome, number in lost.items()]
        lines.append(f"lr {lr:g}, batch size {batch_size}: {', '.join(told) or 'nothing yet'}")
    return lines


def _bisected(seen: Overview) -> list[str]:
    """The largest stable learning rate by batch size, as far as all seeds have ended."""
    plan, lines = seen.identity.bisection, []
    for batch_size in plan.batch_sizes:
        rows = [row for row in seen.ended if row.batch_size == batch_size]
        known = plan.known(map(_slot, rows))
        so_far = "" if len(rows) * len(plan.batch_sizes) == plan.runs else "so far "
        told = limit_words(bracket(known), plan.lr) if known else "nothing yet"
        lines.append(f"batch size {batch_size}: {so_far if known else ''}{told}")
    return lines


def _slot(row: TrialRow) -> Slot:
    values = {"lr": row.lr, "batch_size": row.batch_size, "seed": row.seed}
    return Slot(values, Outcome(row.outcome), row.val_accuracy)


def _mean(accuracies: list[float]) -> str:
    seeds = counted(len(accuracies), "seed")
    spread = f" ± {stdev(accuracies):.2%}" if len(accuracies) > 1 else ""
    return f"test accuracy {mean(accuracies):.2%}{spread} ({seeds}, standard deviation)"


def others_words(row: TrialRow) -> str:
    """What else was searched, with its values; empty where nothing was."""
    return "".join(f", {name} {shown(value)}" for name, value in row.others.items())


def _best_line(best: TrialRow, seen: Overview) -> str:
    return (
        f"best: trial {best.number}, validation accuracy {best.val_accuracy:.2%} "
        f"at lr {best.lr:.3g}, batch size {best.batch_size}{others_words(best)} "
        f"({counted(best.images_seen / seen.identity.train_images, 'epoch')}, "
        f"{seen.identity.precision})"
    )
