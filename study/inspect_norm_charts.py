"""Charts of what comes out of the norms, the models side by side."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from objectives.activations import Inspection
from objectives.channels import EXTREME
from objectives.layers import LayerActivations
from study.charts import Chart, Line, Mark, Panel, Points, Reference

Seen = Sequence[tuple[str, Inspection]]
"""The models' names and what was found in them."""

FEED_FORWARD = ("feed-forward", "hidden")
BLOCK = "block"
LEAST_TOP = 0.1  # of an axis of shares
LEAST_SHIFT = 0.05  # that an axis of running statistics reaches: rounding is to look like none


def norms_chart(seen: Seen) -> Chart:
    """Statistics of what comes out of the norms, by depth."""

    def panel(title: str, value: Callable[[LayerActivations], float], log_y: bool = False) -> Panel:
        return Panel(title, BLOCK, "", _all_by_depth(seen, value), log_y=log_y)

    def shares(title: str, value: Callable[[LayerActivations], float]) -> Panel:
        known = [value(one) for _, found in seen for one in found.layers]
        top = max(filter(math.isfinite, [*known, LEAST_TOP]))
        marks = _all_by_depth(seen, value)
        limits = (-0.03 * top, 1.05 * top)
        return Panel(title, BLOCK, "", marks, percent_y=True, y_range=limits)

    return Chart(
        "norms",
        "What comes out of the norms",
        (
            panel("mean, in standard deviations", lambda one: one.output.relative_mean),
            panel("variance", lambda one: one.output.variance),
            panel("largest magnitude", lambda one: one.output.largest, log_y=True),
            shares("channels with extremes", lambda one: one.output.extreme_share),
            shares("variance between channels", lambda one: one.output.between),
            shares("the same without extremes", lambda one: one.output.between_others),
            shares("the same within an image", lambda one: one.output.between_in_image),
            shares("the same before the norm", lambda one: one.input.between),
        ),
        columns=2,
        caption="Before attention: solid; before or within the feed-forward: dashed. Triangles: "
        "norms before the blocks, between stages and behind the last. A channel has extremes where "
        f"its largest magnitude exceeds {EXTREME:g} times the layer's median of those. The last "
        "four panels: the share of the variance that lies between the channels' means.",
    )


def _all_by_depth(seen: Seen, value: Callable[[LayerActivations], float]) -> tuple[Mark, ...]:
    return tuple(mark for name, found in seen for mark in _by_depth(name, found, value))


def _by_depth(
    name: str, found: Inspection, value: Callable[[LayerActivations], float]
) -> Iterable[Mark]:
    attention = [layer for layer in found.layers if layer.role == "attention"]
    feed_forward = [layer for layer in found.layers if layer.role in FEED_FORWARD]
    others = [layer for layer in found.layers if layer not in (*attention, *feed_forward)]
    for layers, is_dashed in ((attention, False), (feed_forward, True)):
        if layers:
            yield Line(name, *_points(layers, value), dashed=is_dashed, labels=_paths(layers))
    if others:
        yield Points(name, *_points(others, value), symbol="triangle", labels=_paths(others))


def _points(
    layers: Sequence[LayerActivations], value: Callable[[LayerActivations], float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(one.depth for one in layers), tuple(value(one) for one in layers)


def _paths(layers: Sequence[LayerActivations]) -> tuple[str, ...]:
    return tuple(one.path for one in layers)


def channels_chart(seen: Seen) -> Chart:
    """The channels of three norms before attention, by rank of their largest magnitude."""
    panels = []
    for place, where in enumerate(("first", "middle", "last")):
        marks: list[Mark] = []
        for name, found in seen:
            layers = [layer for layer in found.layers if layer.role == "attention"]
            if layers:
                layer = layers[(len(layers) - 1) * place // 2]
                marks.append(_ranked(name, layer))
        line = (Reference(EXTREME, "extreme"),)
        title = f"{where} norm before attention"
        panels.append(
            Panel(
                title,
                "share of the channels, largest first",
                "times the median",
                tuple(marks),
                log_y=True,
                lines=line,
            )
        )
    return Chart("channels", "Largest magnitudes of the channels", tuple(panels), columns=3)


def _ranked(name: str, layer: LayerActivations) -> Mark:
    found = sorted(layer.channels.magnitudes, reverse=True)
    middle = median(found) or 1.0
    values = tuple(value / middle for value in found)
    share = tuple(rank / len(values) for rank in range(1, len(values) + 1))
    return Line(name, share, values, markers=False)


def statistics_chart(seen: Seen) -> Chart:
    """BatchNorm's running averages beside the population's statistics."""
    shifts: list[Line] = []
    ratios: list[Line] = []
    for name, found in seen:
        if found.statistics:
            x = numbers(len(found.statistics))
            labels = tuple(one.path for one in found.statistics)
            shift = tuple(one.mean_shift for one in found.statistics)
            ratio = tuple(one.variance_ratio for one in found.statistics)
            shifts.append(Line(name, x, shift, labels=labels))
            ratios.append(Line(name, x, ratio, labels=labels))
    known = [one for _, found in seen for one in found.statistics]
    off = filter(math.isfinite, [*(one.mean_shift for one in known), LEAST_SHIFT])
    far = filter(math.isfinite, [*(abs(one.variance_ratio - 1.0) for one in known), LEAST_SHIFT])
    reach = 1.1 * max(far)
    order = "BatchNorm, in order"
    return Chart(
        "statistics",
        "Running statistics of BatchNorm beside those of the population",
        (
            Panel(
                "running mean off by, in standard deviations",
                order,
                "",
                tuple(shifts),
                y_range=(0.0, 1.1 * max(off)),
            ),
            Panel(
                "running variance / variance",
                order,
                "",
                tuple(ratios),
                y_range=(max(1.0 - reach, 0.0), 1.0 + reach),
                lines=(Reference(1.0),),
            ),
        ),
    )


def numbers(count: int) -> tuple[float, ...]:
    """1 to `count`."""
    return tuple(float(number) for number in range(1, count + 1))
