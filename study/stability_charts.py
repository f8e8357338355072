"""What stability studies show, as charts: accuracy over learning rates, a map, and the limits."""

import math
from collections.abc import Iterator, Sequence

from study.charts import Chart, Heat, Line, Mark, Panel, Points
from study.stability import Limit
from study.stability_rate import Rate

STRIP = 0.05  # of accuracy, below zero, for the crosses of each model


def stability_charts(found: Sequence[Limit]) -> tuple[Chart, ...]:
    """All charts."""
    return accuracy_chart(found), stability_map(found), limits_chart(found)


def accuracy_chart(found: Sequence[Limit]) -> Chart:
    """Accuracy against the learning rate, a panel for each batch size."""
    models = tuple(dict.fromkeys(limit.model for limit in found))
    return Chart(
        name="accuracy",
        title="Validation accuracy against the learning rate",
        panels=tuple(
            Panel(
                title=f"batch size {batch_size}",
                x_title="learning rate",
                y_title="validation accuracy",
                marks=tuple(
                    mark
                    for limit in found
                    if limit.batch_size == batch_size
                    for mark in _accuracy_marks(limit, models.index(limit.model))
                ),
                log_x=True,
                percent_y=True,
                y_range=(-STRIP * (len(models) + 0.5), 1.0),
            )
            for batch_size in sorted({limit.batch_size for limit in found})
        ),
        caption="Means over seeds, bands from the lowest to the highest. Crosses below: learning "
        "rates with runs that diverged, which count with the accuracy of guessing.",
    )


def stability_map(found: Sequence[Limit]) -> Chart:
    """How often each learning rate of the grid diverged with each batch size, a panel a model."""
    studies = dict.fromkeys(limit.study for limit in found)
    own = [[limit for limit in found if limit.study == study] for study in studies]
    return Chart(
        name="map",
        title="Share of runs that diverged",
        panels=tuple(
            Panel(of_study[0].model, "learning rate", "batch size", (_heat(of_study),))
            for of_study in own
        ),
        caption="In the cells: runs that diverged, of how many. Learning rates of the grid; those "
        "between them, where stability ends, are in the tables.",
    )


def limits_chart(found: Sequence[Limit]) -> Chart:
    """The largest stable learning rate against the batch size."""
    models = dict.fromkeys(limit.model for limit in found)
    own = [[limit for limit in found if limit.model == model] for model in models]
    return Chart(
        name="limits",
        title="Largest stable learning rate",
        panels=(
            Panel(
                title="",
                x_title="batch size",
                y_title="learning rate",
                marks=tuple(mark for of_model in own for mark in _limit_marks(of_model)),
                log_y=True,
                y_range=_decades(found),
            ),
        ),
        caption="Bands: up to the smallest learning rate above it that diverged. Triangles: none "
        "above it was seen to.",
    )


def _accuracy_marks(limit: Limit, strip: int) -> Iterator[Mark]:
    yield Line(
        limit.model,
        x=tuple(rate.lr for rate in limit.rates),
        y=tuple(rate.accuracy for rate in limit.rates),
        low=tuple(min(rate.accuracies) for rate in limit.rates),
        high=tuple(max(rate.accuracies) for rate in limit.rates),
        group=limit.model,
        labels=tuple(
            f"{rate.diverged} of {len(rate.runs)} diverged, {rate.collapsed} collapsed"
            for rate in limit.rates
        ),
    )
    if lost := [rate for rate in limit.rates if rate.diverged]:
        yield Points(
            f"{limit.model}, diverged",
            x=tuple(rate.lr for rate in lost),
            y=(-STRIP * (strip + 0.75),) * len(lost),
            labels=tuple(f"{rate.diverged} of {len(rate.runs)} diverged" for rate in lost),
            symbol="cross",
            group=limit.model,
        )


def _heat(found: Sequence[Limit]) -> Heat:
    rows = [_on_grid(limit) for limit in found]
    return Heat(
        x_categories=tuple(f"{lr:.2g}" for lr in found[0].grid),
        y_categories=tuple(str(limit.batch_size) for limit in found),
        values=tuple(
            tuple(None if rate is None else rate.p_diverge.estimate for rate in row) for row in rows
        ),
        texts=tuple(
            tuple("" if rate is None else f"{rate.diverged}/{len(rate.runs)}" for rate in row)
            for row in rows
        ),
        values_label="share of runs that diverged",
        values_range=(0.0, 1.0),
    )


def _on_grid(limit: Limit) -> list[Rate | None]:
    by_lr = {rate.lr: rate for rate in limit.rates}
    return [by_lr.get(lr) for lr in limit.grid]


def _decades(found: Sequence[Limit]) -> tuple[float, float] | None:
    """Whole powers of ten around all limits, so that the axis has numbers to read."""
    ends = [end for limit in found for end in (limit.ends.low, limit.ends.high) if end is not None]
    if not ends:
        return None
    low, high = (math.log10(end) for end in (min(ends), max(ends)))
    return 10.0 ** math.floor(low), 10.0 ** max(math.ceil(high), math.floor(low) + 1)


def _limit_marks(found: Sequence[Limit]) -> Iterator[Mark]:
    model, ends = found[0].model, [limit.ends for limit in found]
    yield Line(
        model,
        x=tuple(float(limit.batch_size) for limit in found),
        y=tuple(end.low for end in ends),
        low=tuple(end.low for end in ends),
        high=tuple(end.high for end in ends),
        group=model,
    )
    pairs = zip(found, ends, strict=True)
    beyond = [(limit, end) for limit, end in pairs if end.low is not None and end.high is None]
    if beyond:
        yield Points(
            f"{model}, open above",
            x=tuple(float(limit.batch_size) for limit, _ in beyond),
            y=tuple(end.low for _, end in beyond),
            symbol="triangle",
            group=model,
        )
