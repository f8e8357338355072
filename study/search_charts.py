"""Searches in figures: how they went on, where they looked, what mattered."""

import math
from collections.abc import Sequence

from objectives.outcome import Outcome
from study.charts import Bars, Chart, Line, Panel, Points, Symbol
from study.comparison import SearchRow
from study.results import RunResult, StudyResult


def searches_chart(rows: Sequence[SearchRow]) -> Chart:
    """How the searches went on, and what k trials find."""
    trials = [tuple(float(number) for number in range(1, len(row.values) + 1)) for row in rows]
    went = [
        Line(row.result.model, x, row.running_best, markers=False)
        for row, x in zip(rows, trials, strict=True)
    ]
    each = [Points(row.result.model, x, row.values) for row, x in zip(rows, trials, strict=True)]
    expected = [Line(row.result.model, x, row.curve) for row, x in zip(rows, trials, strict=True)]
    lowest = min(min(row.running_best) for row in rows)
    return Chart(
        name="searches",
        title="Convergence of the searches",
        panels=(
            Panel(
                "Best so far, and each trial",
                "trial",
                "validation accuracy",
                (*went, *each),
                percent_y=True,
            ),
            Panel(
                "Expected best of k trials",
                "k",
                "validation accuracy",
                tuple(expected),
                percent_y=True,
                y_range=(min(lowest, min(row.curve[0] for row in rows)), 1.0),
            ),
        ),
        caption="A pruned trial counts as far as it was trained.",
    )


def space_chart(results: Sequence[StudyResult]) -> Chart:
    """Where each search looked, what it found there, and where trials diverged or were pruned."""
    return Chart(
        name="space",
        title="Learning rate and batch size of each trial",
        panels=tuple(_space_panel(result, _range(results)) for result in results),
        caption="Circles were trained to their end, triangles were pruned, crosses diverged or ran "
        "out of memory. Colour is validation accuracy as far as the trial was trained.",
    )


def importances_chart(results: Sequence[StudyResult]) -> Chart | None:
    """How much of the accuracy's variance each parameter explains; None: too few trials."""
    found = [(result.model, _importances(result)) for result in results]
    bars = tuple(
        Bars(model, tuple(shares), tuple(shares.values())) for model, shares in found if shares
    )
    if not bars:
        return None
    return Chart(
        name="importances",
        title="Importance of the parameters (fANOVA, Hutter et al. 2014)",
        panels=(Panel("", "", "share of the explained variance", bars, percent_y=True),),
        columns=1,
        caption="Over the trials that came to their end; those that diverged or ran out of memory "
        "count with the accuracy of guessing.",
    )


_SYMBOLS: dict[Symbol, tuple[Outcome, ...]] = {
    "circle": (Outcome.COMPLETE,),
    "triangle": (Outcome.PRUNED,),
    "cross": (Outcome.DIVERGED, Outcome.OOM),
}


def _space_panel(result: StudyResult, colours: tuple[float, float]) -> Panel:
    marks = []
    for symbol, outcomes in _SYMBOLS.items():
        runs = [run for run in result.runs if run.outcome in outcomes]
        marks.append(
            Points(
                "",  # the caption explains the symbols
                tuple(run.lr for run in runs),
                tuple(float(run.batch_size) for run in runs),
                tuple(_told(run) for run in runs),
                symbol,
                tuple(run.val_accuracy for run in runs) if symbol != "cross" else None,
                "validation accuracy" if symbol == "circle" else "",
                colours,
            )
        )
    shown = tuple(mark for mark in marks if mark.x)
    return Panel(result.model, "learning rate", "batch size", shown, log_x=True)


def _range(results: Sequence[StudyResult]) -> tuple[float, float]:
    """Of the colours of all panels, from the lowest accuracy to the highest."""
    runs = [run for result in results for run in result.runs]
    known = [run.val_accuracy for run in runs if run.val_accuracy is not None]
    return min(known, default=0.0), max(known, default=1.0)


def _told(run: RunResult) -> str:
    reached = "" if run.val_accuracy is None else f", {run.val_accuracy:.2%}"
    return f"trial {run.number}: {run.outcome}{reached}"


def _importances(result: StudyResult) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = [run for run in result.runs if run.outcome is Outcome.COMPLETE]
    if len(complete) < 4 or math.isclose(*_ends(complete)):
        return {}
    evaluator = FanovaImportanceEvaluator(seed=0)
    found = get_param_importances(result.seen.source, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _ends(runs: Sequence[RunResult]) -> tuple[float, float]:
    values = [run.value or 0.0 for run in runs]
    return min(values), max(values)
