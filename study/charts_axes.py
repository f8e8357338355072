"""Marks of a chart on matplotlib's axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from study.charts import Bars, Boxes, Heat, Line, Mark, Panel, Picture, Points, Values
from study.charts_style import BAND_OPACITY, COLOUR_MAP, box, greys, key_of, segments

SYMBOLS = {"circle": "o", "cross": "x", "triangle": "^"}
TAKEN = 0.8  # of a category's width
LONG_LABELS = 40  # characters along an axis of categories, beyond which they are turned


def draw(mark: Mark, panel: Panel, axes: Axes, colours: Mapping[str, str]) -> None:
    """Draw `mark` of `panel`; `colours` are by key."""
    match mark:
        case Line():
            _line(mark, panel, axes, colours[key_of(mark)])
        case Points():
            _points(mark, axes, colours.get(key_of(mark)))
        case Bars():
            _bars(mark, panel, axes, colours[key_of(mark)])
        case Boxes():
            _boxes(mark, panel, axes, colours[key_of(mark)])
        case Heat():
            _heat(mark, axes)
        case Picture():
            axes.imshow(greys(mark), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")


def numbers(values: Values) -> list[float]:
    """`values` as matplotlib takes them: a gap is NaN."""
    return [math.nan if value is None else value for value in values]


def _line(line: Line, panel: Panel, axes: Axes, colour: str) -> None:
    for x, low, high in segments(line, panel):
        axes.fill_between(x, low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
    axes.plot(
        numbers(line.x),
        numbers(line.y),
        color=colour,
        linewidth=1.8,
        linestyle="--" if line.dashed else "-",
        marker="o" if line.markers else None,
        markersize=4,
    )


def _points(points: Points, axes: Axes, colour: str | None) -> None:
    place = numbers(points.x), numbers(points.y)
    marker = SYMBOLS[points.symbol]
    if points.values is None:
        axes.scatter(*place, s=30, marker=marker, color=colour)
        return
    low, high = points.values_range or (None, None)
    colours: dict[str, Any] = {"cmap": COLOUR_MAP.lower(), "vmin": low, "vmax": high}
    drawn = axes.scatter(*place, s=30, marker=marker, c=numbers(points.values), **colours)
    if points.values_label:
        _colour_bar(axes, drawn, points.values_label)


def _colour_bar(axes: Axes, drawn: ScalarMappable, label: str) -> None:
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _bars(bars: Bars, panel: Panel, axes: Axes, colour: str) -> None:
    places, width = _places(bars, panel, axes)
    axes.bar(places, numbers(bars.values), width, color=colour)
    if bars.low is None or bars.high is None:
        return
    triples = zip(bars.low, bars.values, bars.high, strict=True)
    below, above = [], []
    for low, value, high in triples:
        below.append(math.nan if value is None or low is None else value - low)
        above.append(math.nan if value is None or high is None else high - value)
    style: dict[str, Any] = {"ecolor": "0.35", "fmt": "none", "elinewidth": 1.2, "capsize": 3}
    axes.errorbar(places, numbers(bars.values), [below, above], **style)


def _boxes(boxes: Boxes, panel: Panel, axes: Axes, colour: str) -> None:
    places, width = _places(boxes, panel, axes)
    for place, values in zip(places, boxes.values, strict=True):
        if (one := box(values)) is None:
            continue
        told = {
            "whislo": one.low,
            "q1": one.lower_quartile,
            "med": one.median,
            "q3": one.upper_quartile,
            "whishi": one.high,
            "fliers": list(one.outliers),
        }
        lines: dict[str, Any] = {"color": colour, "linewidth": 1.4}
        axes.bxp(
            [told],
            positions=[place],
            widths=[width * 0.85],
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": (colour, BAND_OPACITY), "edgecolor": colour, "linewidth": 1.4},
            medianprops=lines,
            whiskerprops=lines,
            capprops=lines,
            flierprops={"marker": "o", "markersize": 3, "markeredgecolor": colour},
        )


def _places(mark: Bars | Boxes, panel: Panel, axes: Axes) -> tuple[list[float], float]:
    """Where along the axis each category of `mark` stands beside its like, and how wide it is."""
    alike = [other for other in panel.marks if isinstance(other, type(mark))]
    categories = list(dict.fromkeys(c for other in alike for c in other.categories))
    _label_categories(axes, categories)
    width = TAKEN / len(alike)
    offset = (alike.index(mark) - (len(alike) - 1) / 2) * width
    return [categories.index(category) + offset for category in mark.categories], width


def _label_categories(axes: Axes, categories: Sequence[str]) -> None:
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    is_long = sum(map(len, categories)) > LONG_LABELS
    axes.set_xticks(range(len(categories)), categories, **(turned if is_long else {}))
    axes.grid(False, axis="x")


def _heat(heat: Heat, axes: Axes) -> None:
    rows = [numbers(row) for row in heat.values]
    low, high = heat.values_range or (None, None)
    drawn = axes.imshow(rows, cmap=COLOUR_MAP.lower(), aspect="auto", vmin=low, vmax=high)
    _label_categories(axes, heat.x_categories)
    axes.set_yticks(range(len(heat.y_categories)), heat.y_categories)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    _colour_bar(axes, drawn, heat.values_label)
    for row, texts in enumerate(heat.texts):
        for column, text in enumerate(texts):
            red, green, blue, _ = drawn.to_rgba(np.array([rows[row][column]]))[0]
            is_light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.45
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
            axes.text(column, row, text, color="black" if is_light else "white", **place)
