"""A comparison in figures: curves with bands over seeds, times against learning rate, searches."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from study.charts import Chart, Line, Panel
from study.comparison import Cell, epoch_times_s
from study.results import RunResult

_Value = Callable[[RunResult], list[tuple[float, float]]]  # of a run: epochs and values

BAND = "The line is the mean over the seeds, the band goes from the lowest to the highest."


def curves_charts(cells: Sequence[Cell]) -> Iterator[Chart]:
    """The article's four panels against the epoch, for each learning rate and batch size.

    Tuned variants, each with values of its own, share one chart.
    """
    groups: dict[str, list[Cell]] = {}
    is_tuned = len({cell.study for cell in cells}) == len(cells)
    for cell in cells:
        at = (
            "each at its own values"
            if is_tuned
            else f"lr {cell.lr:g}, batch size {cell.batch_size}"
        )
        groups.setdefault(at, []).append(cell)
    for number, (at, group) in enumerate(groups.items(), start=1):
        yield Chart(
            name=f"curves-{number}",
            title=f"Curves, {at}",
            panels=tuple(_curve_panel(*each, group) for each in _PANELS),
            caption=f"{BAND} Times are as they were during the experiment and rank nothing.",
        )


def times_chart(cells: Sequence[Cell]) -> Chart | None:
    """Training time of an epoch against the learning rate; None where there is but one."""
    lines = _by_batch_size(cells)
    if max((len(line) for line in lines), default=0) < 2:
        return None
    has_sizes = len({line[0].batch_size for line in lines}) > 1
    return Chart(
        name="times",
        title="Training time of an epoch against the learning rate",
        panels=(
            Panel(
                "",
                "learning rate",
                "s per epoch, during the experiment",
                tuple(_times_line(line, has_sizes) for line in lines),
                log_x=True,
                y_range=None,
            ),
        ),
        columns=1,
        caption="The line is the median over epochs and seeds, the band its quartiles. The machine "
        "was not idle for this, so that it ranks nothing.",
    )


def _per_epoch(run: RunResult) -> list[tuple[float, float]]:
    epochs = [rung["epoch"] for rung in run.curve]
    return list(zip(epochs, epoch_times_s(run), strict=False))


def _of(key: str) -> _Value:
    return lambda run: [(rung["epoch"], rung[key]) for rung in run.curve if key in rung]


_PANELS: tuple[tuple[str, str, _Value, bool], ...] = (
    ("Training time", "s per epoch", _per_epoch, False),
    ("Evaluation time", "s per evaluation", _of("val_time_s"), False),
    ("Training loss", "cross-entropy", _of("train_loss"), False),
    ("Validation accuracy", "", _of("val_accuracy"), True),
)


def _curve_panel(
    title: str, unit: str, value: _Value, is_share: bool, cells: Sequence[Cell]
) -> Panel:
    marks = tuple(line for cell in cells if (line := _band(cell, value)) is not None)
    is_loss = "loss" in title
    return Panel(title, "epoch", unit, marks, log_y=is_loss, percent_y=is_share)


def _band(cell: Cell, value: _Value) -> Line | None:
    """Mean, lowest and highest over the seeds; where a run has ended early it counts no more."""
    by_epoch: dict[float, list[float]] = {}
    for run in cell.runs:
        for epoch, found in value(run):
            by_epoch.setdefault(round(epoch), []).append(found)
    if not by_epoch:
        return None
    epochs = tuple(sorted(by_epoch))
    return Line(
        cell.model,
        epochs,
        tuple(fmean(by_epoch[epoch]) for epoch in epochs),
        tuple(min(by_epoch[epoch]) for epoch in epochs),
        tuple(max(by_epoch[epoch]) for epoch in epochs),
        markers=len(epochs) < 4,
    )


def _by_batch_size(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each study and batch size that have times, by learning rate."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    timed = (cell for cell in cells if cell.epoch_s is not None)
    for cell in sorted(timed, key=lambda cell: cell.lr):
        groups.setdefault((cell.study, cell.batch_size), []).append(cell)
    order = list(dict.fromkeys(cell.study for cell in cells))
    return [groups[key] for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))]


def _times_line(own: Sequence[Cell], has_batch_size: bool) -> Line:
    times = {cell.lr: sorted(t for run in cell.runs for t in epoch_times_s(run)) for cell in own}
    return Line(
        f"{own[0].model}, batch size {own[0].batch_size}" if has_batch_size else own[0].model,
        tuple(times),
        tuple(median(found) for found in times.values()),
        tuple(found[len(found) // 4] for found in times.values()),
        tuple(found[(3 * len(found)) // 4 - (len(found) % 4 == 0)] for found in times.values()),
    )
