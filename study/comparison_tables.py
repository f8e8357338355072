"""A comparison in words and tables: the verdicts first."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from objectives.intervals import Interval
from study.comparison import Cell, Pair, SearchRow, best_by_batch_size
from study.statistics import Comparison
from study.tabular import Tabular
from study.words import counted

_KS = (1, 5, 10, 20, 50, 100)  # of best-of-k in a table


def unequal_notes(unequal: Sequence[str]) -> tuple[str, ...]:
    """What stands below every table of studies that are not alike."""
    return tuple(f"UNEQUAL: {line}" for line in unequal)


def accuracy_verdicts(pairs: Sequence[Pair]) -> Iterator[str]:
    """A sentence for each pair on test accuracy."""
    for pair in pairs:
        subject = f"{_title(pair.cell, pair.reference)}"
        if pair.accuracy is None:
            yield f"accuracy: {subject}: fewer than two seeds in common, nothing to compare"
            continue
        found = pair.accuracy
        verdict = found.verdict("more accurate", "less accurate")
        yield (
            f"accuracy: {subject}: {verdict}; difference {points(found.difference)} points "
            f"(95 %), {counted(found.pairs, 'seed')}, P({pair.cell.model} better) = "
            f"{shares(found.p_better)}{_shown_at_least(found)}"
        )


def convergence_verdicts(pairs: Sequence[Pair], target: float) -> Iterator[str]:
    """A sentence for each pair on the epochs that it takes to the target."""
    if not all(pair.cell.has_validation for pair in pairs):
        yield "convergence: not known, as the validation images were trained on, too"
        return
    for pair in pairs:
        subject = f"convergence: {_title(pair.cell, pair.reference)}"
        if pair.epochs_to_target is None:
            yield f"{subject}: no verdict, {_who_arrived(pair, target)}"
            continue
        found = pair.epochs_to_target
        verdict = found.verdict("more epochs", "fewer epochs")
        yield (
            f"{subject}: {verdict} to {target:.0%} validation accuracy; difference "
            f"{_signed(found.difference, 2)} epochs (95 %), {counted(found.pairs, 'seed')}"
        )


def cells_table(cells: Sequence[Cell], target: float, unequal: Sequence[str]) -> Tabular:
    """Every configuration of every study."""
    seed_counts = {len(cell.runs) for cell in cells}
    return Tabular(
        name="runs",
        title=f"Test accuracy over {'–'.join(map(str, sorted(seed_counts)))} seeds, read once at "
        "the end of each run",
        headings=(
            "model",
            "lr",
            "batch size",
            "seeds",
            "test accuracy (95 %)",
            "lowest to highest",
            "diverged",
            f"epochs to {target:.0%}",
            "s to it, during the experiment",
            "s per epoch, during the experiment",
        ),
        rows=tuple(tuple(_cell_row(cell, target)) for cell in cells),
        notes=(
            "A run that diverged counts with the accuracy of guessing, one that ran out of memory "
            "does not count. Times during the experiment depend on what else the machine did: they "
            "rank nothing.",
            *unequal_notes(unequal),
        ),
    )


def pairs_table(pairs: Sequence[Pair], unequal: Sequence[str]) -> Tabular:
    """Each variant against the first, by seed."""
    family = max((pair.accuracy.family for pair in pairs if pair.accuracy), default=1)
    together = f" The intervals of {family} comparisons hold together (Bonferroni)."
    return Tabular(
        name="pairs",
        title="Differences of test accuracy, paired by seed and data order",
        headings=(
            "model against reference",
            "lr",
            "batch size",
            "pairs",
            "difference in points (95 %)",
            "P(better) (95 %)",
            "pairs won",
            "smallest difference shown",
            "verdict",
        ),
        rows=tuple(tuple(_pair_row(pair)) for pair in pairs if pair.accuracy is not None),
        notes=(
            "The smallest difference is the true one that so many pairs, spread like these, would "
            f"have shown four times in five.{together if family > 1 else ''}",
            *unequal_notes(unequal),
        ),
    )


def batch_sizes_table(cells: Sequence[Cell], target: float, unequal: Sequence[str]) -> Tabular:
    """What the batch size buys, each with the learning rate that validated best."""
    rows = []
    for cell in best_by_batch_size(cells):
        times = [each.seconds for each in cell.reached(target).values()]
        to_target = f"{median(times):.0f}" if len(times) == len(cell.runs) else "not all reached it"
        values = (cell.model, f"{cell.batch_size}", f"{cell.lr:g}")
        rows.append((*values, accuracy_words(cell), to_target))
    return Tabular(
        name="batch-sizes",
        title="Each batch size at its own best learning rate, chosen on the validation split",
        headings=("model", "batch size", "lr", "test accuracy (95 %)", f"s to {target:.0%}"),
        rows=tuple(rows),
        notes=(
            "A batch size that seems better may only have had the better learning rate (Godbole et "
            "al. 2023, Deep Learning Tuning Playbook): so each has its own here.",
            *unequal_notes(unequal),
        ),
    )


def searches_table(rows: Sequence[SearchRow], unequal: Sequence[str]) -> Tabular:
    """What each search found, and what k trials would have found."""
    least = min(len(row.values) for row in rows)
    ks = [k for k in _KS if k <= least]
    return Tabular(
        name="searches",
        title="Searches: one run per trial, so numbers and no verdict",
        headings=(
            "study",
            "model",
            "best validation accuracy",
            "lr",
            "batch size",
            "trials",
            "epochs' worth",
            *(f"best of {k}" for k in ks),
        ),
        rows=tuple(tuple(_search_row(row, ks)) for row in rows),
        left=2,
        notes=(
            "Best of k: the expected best of k of its trials drawn at random, pruned ones as far "
            "as they were trained; it tells a better model from better luck in tuning.",
            *unequal_notes(unequal),
        ),
    )


def points(interval: Interval) -> str:
    """A difference of accuracies in percentage points."""
    scaled = (100 * each for each in (interval.estimate, interval.low, interval.high))
    return _signed(Interval(*scaled), 2)


def shares(interval: Interval) -> str:
    """A share in per cent with its interval."""
    return f"{interval.estimate:.0%} ({interval.low:.0%}–{interval.high:.0%})"


def _signed(value: Interval, digits: int) -> str:
    shown = (f"{each:+.{digits}f}" for each in (value.estimate, value.low, value.high))
    estimate, low, high = (each.replace("-", "−") for each in shown)
    return f"{estimate} ({low} to {high})"


def _shown_at_least(found: Comparison) -> str:
    if not found.has_verdict:
        return ""
    return f"; {100 * found.detectable:.2f} points would have been shown"


def _title(cell: Cell, reference: Cell) -> str:
    values = f"lr {cell.lr:.3g}, batch size {cell.batch_size}"
    if (cell.lr, cell.batch_size) == (reference.lr, reference.batch_size):
        return f"{cell.model} against {reference.model} at {values}"
    own = f"lr {reference.lr:.3g}, batch size {reference.batch_size}"
    return f"{cell.model} (lr {cell.lr:.3g}, batch size {cell.batch_size}) against " + (
        f"{reference.model} ({own})"
    )


def _who_arrived(pair: Pair, target: float) -> str:
    told = [
        f"{each.model} {len(each.reached(target))} of {len(each.runs)}"
        for each in (pair.cell, pair.reference)
    ]
    return f"as not all runs reached {target:.0%}: {', '.join(told)}"


def accuracy_words(cell: Cell) -> str:
    """The mean test accuracy of a cell with its interval, or the one value that there is."""
    accuracies = list(cell.accuracies.values())
    if cell.mean is None:
        return "".join(f"{value:.2%}" for value in accuracies)
    half = 100 * cell.mean.half_width
    return f"{100 * cell.mean.estimate:.2f} ± {half:.2f} %"


def _seeds(cell: Cell) -> str:
    lost = cell.out_of_memory
    return f"{len(cell.runs)}, {lost} out of memory" if lost else str(len(cell.runs))


def _cell_row(cell: Cell, target: float) -> Iterator[str]:
    accuracies, arrived = list(cell.accuracies.values()), cell.reached(target).values()
    yield cell.model
    yield f"{cell.lr:.3g}"
    yield str(cell.batch_size)
    yield _seeds(cell)
    yield accuracy_words(cell)
    yield f"{min(accuracies):.2%}–{max(accuracies):.2%}" if accuracies else ""
    yield f"{cell.diverged} of {len(cell.runs)}"
    missing = len(cell.runs) - len(arrived)
    some = f" ({missing} did not)" if missing else ""
    never = "not reached" if cell.has_validation else "no validation split"
    yield f"{fmean(each.epochs for each in arrived):.1f}{some}" if arrived else never
    yield f"{median(each.seconds for each in arrived):.0f}" if arrived else ""
    yield "" if cell.epoch_s is None else f"{cell.epoch_s:.1f}"


def _pair_row(pair: Pair) -> Iterator[str]:
    found = pair.accuracy
    assert found is not None  # the others are left out
    same = pair.cell.lr == pair.reference.lr and pair.cell.batch_size == pair.reference.batch_size
    yield f"{pair.cell.model} against {pair.reference.model}"
    yield f"{pair.cell.lr:.3g}" if same else f"{pair.cell.lr:.3g}, {pair.reference.lr:.3g}"
    sizes = (pair.cell.batch_size, pair.reference.batch_size)
    yield str(sizes[0]) if same else f"{sizes[0]}, {sizes[1]}"
    yield str(found.pairs)
    yield points(found.difference)
    yield shares(found.p_better)
    yield f"{found.won:g} of {found.pairs}"
    yield f"{100 * found.detectable:.2f}"
    yield found.verdict("more accurate", "less accurate")


def _search_row(row: SearchRow, ks: Sequence[int]) -> Iterator[str]:
    seen = row.result.seen
    best = seen.best
    assert best is not None  # a result has a completed trial
    assert best.val_accuracy is not None
    yield row.result.name
    yield row.result.model
    yield f"{best.val_accuracy:.2%}"
    yield f"{best.lr:.3g}"
    yield str(best.batch_size)
    yield str(len(seen.counted))
    yield f"{seen.epochs_trained:.1f}"
    yield from (f"{row.curve[k - 1]:.2%}" for k in ks)
