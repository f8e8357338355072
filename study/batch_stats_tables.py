"""What `batch-stats` found, as tables."""

from collections.abc import Iterator, Sequence
from statistics import mean

from study.batch_stats_findings import WAYS, errors, jitter, spread, watched_at
from study.batch_stats_runs import BatchStats
from study.tabular import Tabular


def batch_stats_tables(found: BatchStats) -> list[Tabular]:
    """Every table there is something to show in."""
    tables = [sweep_table(found), leakage_table(found), estimates_table(found)]
    return [table for table in tables if table.rows]


def sweep_table(found: BatchStats) -> Tabular:
    """Errors over NBS, each way to judge a column."""
    swept = {one.nbs for one in found.swept}
    ways = [way for way in WAYS if any(errors(found, nbs, way) for nbs in swept)]
    rows = tuple(
        (
            str(nbs),
            *(_shown(errors(found, nbs, way)) for way in ways),
            _diverged(found, nbs),
        )
        for nbs in found.request.nbs
    )
    return Tabular(
        "sweep",
        f"Errors by normalisation batch size (NBS), SGD batch {found.request.sgd_batch}: mean "
        "(lowest to highest) over seeds",
        ("NBS", *ways, "diverged"),
        rows,
        notes=(
            "PreciseBN: exact population statistics. Running averages: those of training, on the "
            "same weights. Frozen: BatchNorm kept its population statistics in the last epochs.",
        ),
    )


def _diverged(found: BatchStats, nbs: int) -> str:
    """How many runs did, and how many only where BatchNorm was frozen."""
    runs = [one.judged for one in found.swept if one.nbs == nbs]
    lost = str(sum(one is None for one in runs))
    if not found.request.freeze_last:
        return lost
    frozen = sum(one is not None and one.frozen is None for one in runs)
    return f"{lost}, {frozen} frozen" if frozen else lost


def leakage_table(found: BatchStats) -> Tabular:
    """What it does to sort the validation images by class."""
    rows = []
    for nbs in found.request.nbs:
        judged = [one.judged for one in found.swept if one.nbs == nbs and one.judged is not None]
        if judged:
            leaks = [one.leakage for one in judged]
            rows.append(
                (
                    str(nbs),
                    f"{mean(one.batch_shuffled for one in leaks):.2%}",
                    f"{mean(one.batch_sorted for one in leaks):.2%}",
                    f"{100 * mean(one.jump for one in leaks):+.2f}",
                    f"{100 * max((one.population_jump for one in leaks), key=abs):+.2f}",
                )
            )
    return Tabular(
        "leakage",
        "Validation accuracy with images shuffled, and sorted by class: what differs leaks in from "
        "the other images of a batch",
        (
            "NBS",
            "mini-batch, shuffled",
            "mini-batch, sorted",
            "jump (points)",
            "jump by population statistics",
        ),
        tuple(rows),
        notes=("The jump by population statistics is the largest of all seeds.",),
    )


def estimates_table(found: BatchStats) -> Tabular:
    """Errors by both estimates early and late, and how much they move."""
    rows = [row for size in found.request.curve_batches for row in _estimates(found, size)]
    return Tabular(
        "estimates",
        "Validation error through training by both estimates of the same weights, means over seeds",
        (
            "batch",
            "statistics",
            "after the first epoch",
            "after the last",
            "jitter in the second half",
        ),
        tuple(rows),
        left=2,
        notes=("Jitter: how far an epoch's error is from the mean of its neighbours, on average.",),
    )


def _estimates(found: BatchStats, size: int) -> Iterator[tuple[str, ...]]:
    runs = watched_at(found, size)
    ways: dict[str, list[tuple[float, ...]]] = {
        "running averages": [one.running_errors for one in runs],
        "PreciseBN": [one.precise_errors for one in runs],
    }
    for name, curves in ways.items():
        if curves:
            first, last = (mean(curve[place] for curve in curves) for place in (0, -1))
            moves = mean(map(jitter, curves))
            yield str(size), name, f"{first:.2%}", f"{last:.2%}", f"{moves:.2%}"


def _shown(values: Sequence[float]) -> str:
    found = spread(values)
    if found is None:
        return "–"
    if len(values) == 1:
        return f"{found.mean:.2%}"
    return f"{found.mean:.2%} ({100 * found.low:.2f}–{100 * found.high:.2f})"
