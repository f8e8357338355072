"""Charts of what an inspection found, the models side by side."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median

from objectives.activations import Inspection
from objectives.channels import EXTREME, Spread
from objectives.layers import LayerActivations
from objectives.residual import BlockChange
from study.charts import Bars, Chart, Line, Mark, Panel, Picture, Points, Reference

Seen = Sequence[tuple[str, Inspection]]
"""The models' names and what was found in them."""

FEED_FORWARD = ("feed-forward", "hidden")
BLOCK = "block"


def charts_of(seen: Seen, image: Picture) -> list[Chart]:
    """Every chart there is something to show in; `image` is that of the feature maps."""
    charts = [_norms(seen), _blocks(seen), _channels(seen), _statistics(seen), _injection(seen)]
    charts += [_features(name, found, image) for name, found in seen]
    return [chart for chart in charts if any(panel.marks for panel in chart.panels)]


def _norms(seen: Seen) -> Chart:
    def panel(
        title: str, value: Callable[[Spread], float], log_y: bool = False, percent_y: bool = False
    ) -> Panel:
        marks = [mark for name, found in seen for mark in _by_depth(name, found, value)]
        return Panel(title, BLOCK, "", tuple(marks), log_y=log_y, percent_y=percent_y)

    return Chart(
        "norms",
        "What comes out of the norms",
        (
            panel("mean of all values", lambda one: one.mean),
            panel("variance of all values", lambda one: one.variance),
            panel("largest magnitude", lambda one: max(-one.lowest, one.highest), log_y=True),
            panel(
                "channels with extremes",
                lambda one: len(one.extreme_channels) / one.channels,
                percent_y=True,
            ),
            panel("variance between channels", lambda one: one.between, percent_y=True),
            panel("the same without extremes", lambda one: one.between_others, percent_y=True),
        ),
        columns=2,
        caption="Before attention: solid; before or within the feed-forward: dashed. Triangles: "
        "norms before the blocks, between stages and behind the last. A channel has extremes where "
        f"its largest magnitude exceeds {EXTREME:g} times the layer's median of those. Variance "
        "between channels is the share that lies between their means.",
    )


def _by_depth(name: str, found: Inspection, value: Callable[[Spread], float]) -> Iterable[Mark]:
    attention = [layer for layer in found.layers if layer.role == "attention"]
    feed_forward = [layer for layer in found.layers if layer.role in FEED_FORWARD]
    others = [layer for layer in found.layers if layer not in (*attention, *feed_forward)]
    for layers, is_dashed in ((attention, False), (feed_forward, True)):
        if layers:
            yield Line(name, *_points(layers, value), dashed=is_dashed, labels=_paths(layers))
    if others:
        yield Points(name, *_points(others, value), symbol="triangle", labels=_paths(others))


def _points(
    layers: Sequence[LayerActivations], value: Callable[[Spread], float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(one.depth for one in layers), tuple(float(value(one.output)) for one in layers)


def _paths(layers: Sequence[LayerActivations]) -> tuple[str, ...]:
    return tuple(one.path for one in layers)


def _blocks(seen: Seen) -> Chart:
    size = [m for name, found in seen for m in _changes(name, found.blocks, "relative")]
    angle = [m for name, found in seen for m in _changes(name, found.blocks, "cosine")]
    entropy = [_entropy(name, found) for name, found in seen]
    flat = [mark for name, found in seen for mark in _flat(name, found)]
    return Chart(
        "blocks",
        "What the blocks do",
        (
            Panel("size of a branch, ‖branch(x)‖ / ‖x‖", BLOCK, "", tuple(size), log_y=True),
            Panel("cosine of x before and after it", BLOCK, "", tuple(angle)),
            Panel("entropy of attention", BLOCK, "of the largest possible", tuple(entropy)),
            Panel("units where the activation is flat", BLOCK, "", tuple(flat), percent_y=True),
        ),
        caption="x is the residual stream. Branches: attention solid, feed-forward dashed. "
        "Entropy: mean over heads, the band spans them. Flat: inputs at 0 or less solid, for ReLU6 "
        "at 6 or more dashed.",
    )


def _changes(name: str, blocks: Sequence[BlockChange], what: str) -> Iterable[Mark]:
    for part, is_dashed in (("attention", False), ("feed_forward", True)):
        values = tuple(getattr(getattr(block, part), what) for block in blocks)
        yield Line(name, _numbers(len(values)), values, dashed=is_dashed)


def _entropy(name: str, found: Inspection) -> Mark:
    heads = [one.heads for one in found.attention]
    low, high = tuple(map(min, heads)), tuple(map(max, heads))
    return Line(name, _numbers(len(heads)), tuple(map(fmean, heads)), low, high)


def _flat(name: str, found: Inspection) -> Iterable[Mark]:
    x = _numbers(len(found.activations))
    yield Line(name, x, tuple(one.off for one in found.activations))
    full = tuple(one.full for one in found.activations)
    if any(value is not None for value in full):
        yield Line(name, x, full, dashed=True)


def _channels(seen: Seen) -> Chart:
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


def _statistics(seen: Seen) -> Chart:
    shifts: list[Mark] = []
    ratios: list[Mark] = []
    for name, found in seen:
        if found.statistics:
            x = _numbers(len(found.statistics))
            labels = tuple(one.path for one in found.statistics)
            shift = tuple(one.mean_shift for one in found.statistics)
            ratio = tuple(one.variance_ratio for one in found.statistics)
            shifts.append(Line(name, x, shift, labels=labels))
            ratios.append(Line(name, x, ratio, labels=labels))
    mean = "running mean off by, in standard deviations"
    return Chart(
        "statistics",
        "Running statistics of BatchNorm beside those of the population",
        (
            Panel(mean, "BatchNorm, in order", "", tuple(shifts)),
            Panel(
                "running variance / variance",
                "BatchNorm, in order",
                "",
                tuple(ratios),
                lines=(Reference(1.0),),
            ),
        ),
    )


def _injection(seen: Seen) -> Chart:
    carried: list[Mark] = []
    accuracy: list[Mark] = []
    factor = 0.0
    for name, found in seen:
        if (one := found.injection) is not None:
            factor = one.factor
            values = (one.at_entry, *one.after_blocks)
            carried.append(Line(name, tuple(map(float, range(len(values)))), values))
            both = (one.accuracy, one.accuracy_injected)
            accuracy.append(Bars(name, ("as it is", "injected"), both))
    return Chart(
        "injection",
        f"The channel of the largest extreme, multiplied by {factor:g} before the first block",
        (
            Panel("change of x, ‖x' - x‖ / ‖x‖", "after block", "", tuple(carried), log_y=True),
            Panel("accuracy", "", "", tuple(accuracy), percent_y=True, y_range=(0.0, 1.0)),
        ),
    )


def _features(name: str, found: Inspection, image: Picture) -> Chart:
    panels = []
    for block in dict.fromkeys(one.block for one in found.maps):
        panels.append(Panel("image", "", "", (image,)))
        for one in found.maps:
            if one.block == block:
                title = f"block {block}, ch. {one.channel}"
                panels.append(Panel(title, "", "", (Picture(one.pixels),)))
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)
    return Chart(
        f"features-{stem}",
        f"Feature maps of {name}",
        tuple(panels),
        columns=5,
        caption="The residual stream after a block, patch by patch: the channels that vary most. "
        "Each from its least (black) to its greatest value (white).",
    )


def _numbers(count: int) -> tuple[float, ...]:
    return tuple(float(number) for number in range(1, count + 1))
