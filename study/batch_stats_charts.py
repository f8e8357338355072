"""What `batch-stats` found, as charts."""

from collections.abc import Sequence

from study.batch_stats_findings import (
    BATCH,
    FROZEN,
    POPULATION,
    RUNNING,
    TRAIN,
    WAYS,
    Spread,
    evaluations,
    spread,
    watched_at,
)
from study.batch_stats_runs import BatchStats
from study.charts import Chart, Line, Panel

_BANDS = "Means over seeds, bands from the lowest to the highest."


def batch_stats_charts(found: BatchStats) -> list[Chart]:
    """Every chart there is something to show in."""
    charts = [three_way_chart(found), frozen_chart(found), curves_chart(found)]
    return [chart for chart in charts if any(panel.marks for panel in chart.panels)]


def three_way_chart(found: BatchStats) -> Chart:
    """Error and loss over NBS, each of the three ways a line."""
    return Chart(
        name="three-ways",
        title=f"{found.request.model} judged three ways over the normalisation batch size",
        panels=_panels(found, (TRAIN, BATCH, POPULATION)),
        caption=f"SGD batch {found.request.sgd_batch}; only NBS differs between the runs. "
        f"PreciseBN: exact population statistics. {_BANDS}",
        order=tuple(WAYS),
    )


def frozen_chart(found: BatchStats) -> Chart:
    """Error and loss on validation images over NBS, by four kinds of statistics."""
    request = found.request
    ways: tuple[str, ...] = (BATCH, POPULATION, RUNNING)
    caption = f"SGD batch {request.sgd_batch}."
    if request.freeze_last:
        ways += (FROZEN,)
        caption += (
            " Frozen: the same run, but BN kept its population statistics in the last "
            f"{request.frozen_epochs:g} of {request.epochs} epochs."
        )
    return Chart(
        name="frozen",
        title=f"{request.model} on validation images by the statistics that BatchNorm uses",
        panels=_panels(found, ways),
        caption=f"{caption} {_BANDS}",
        order=tuple(WAYS),
    )


def curves_chart(found: BatchStats) -> Chart:
    """Validation error after each epoch by both estimates, a panel for each batch size."""
    request = found.request
    panels = []
    for size in request.curve_batches:
        runs = watched_at(found, size)
        running = [
            list(values) for values in zip(*(one.running_errors for one in runs), strict=True)
        ]
        precise = [
            list(values) for values in zip(*(one.precise_errors for one in runs), strict=True)
        ]
        epochs = tuple(float(epoch + 1) for epoch in range(len(running)))
        lines = (
            _band(f"running averages (momentum {request.momentum:g})", epochs, running),
            _band("PreciseBN", epochs, precise),
        )
        panels.append(
            Panel(
                f"batch {size}", "epoch", "validation error", lines if runs else (), percent_y=True
            )
        )
    return Chart(
        name="estimates",
        title=f"{request.model} through training: running averages and PreciseBN, same weights",
        panels=tuple(panels),
        caption=f"{_BANDS} Momentum is the weight of the old average; torch's bn_momentum is "
        f"{request.bn_momentum:g}.",
    )


def _panels(found: BatchStats, ways: tuple[str, ...]) -> tuple[Panel, ...]:
    if not found.swept:
        return ()
    nbs = found.request.nbs
    of_ways = {way: [evaluations(found, each, way) for each in nbs] for way in ways}
    x = tuple(map(float, nbs))
    errors = tuple(
        _band(way, x, [[1.0 - one.accuracy for one in each] for each in found_ones])
        for way, found_ones in of_ways.items()
    )
    losses = tuple(
        _band(way, x, [[one.loss for one in each] for each in found_ones])
        for way, found_ones in of_ways.items()
    )
    title = "normalisation batch size (images)"
    return (
        Panel("", title, "error", errors, log_x=True, percent_y=True),
        Panel("", title, "cross-entropy", losses, log_x=True),
    )


def _band(name: str, x: tuple[float, ...], values: Sequence[list[float]]) -> Line:
    spreads: list[Spread | None] = [spread(each) for each in values]
    return Line(
        name,
        x,
        tuple(None if one is None else one.mean for one in spreads),
        low=tuple(None if one is None else one.low for one in spreads),
        high=tuple(None if one is None else one.high for one in spreads),
    )
