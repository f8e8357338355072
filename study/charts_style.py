"""What both drawings of a chart share: colours, the legend, how numbers become boxes and greys."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from study.charts import (
    Bars,
    Boxes,
    Chart,
    Heat,
    Line,
    Panel,
    Picture,
    Points,
    Series,
    Values,
)

# Okabe & Ito, "Color Universal Design" (2008): told apart by all kinds of colour vision. Their
# black is a grey here, as it must show on a dark page too; yellow, weak on white, comes last.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#999999",
    "#F0E442",
)
COLOUR_MAP = "Cividis"  # of numbers: even in lightness, and for all kinds of colour vision
BAND_OPACITY = 0.2
WHISKER = 1.5  # of the range between the quartiles

Kind = Literal["line", "dashed", "points", "area"]


@dataclass(frozen=True)
class Entry:
    """A line of the legend."""

    key: str
    colour: str
    kind: Kind


@dataclass(frozen=True)
class Box:
    """What a box shows of its values."""

    low: float  # where the whiskers end
    lower_quartile: float
    median: float
    upper_quartile: float
    high: float
    outliers: tuple[float, ...]


def key_of(mark: Series) -> str:
    """What `mark` shares its colour by."""
    return mark.name if mark.group is None else mark.group


def entries(chart: Chart) -> tuple[Entry, ...]:
    """An entry for each key in the order of colours; beyond eight keys, colours come again."""
    found: dict[str, Kind] = {}
    for mark in _series(chart):
        found.setdefault(key_of(mark), _kind(mark))
    keys = list(dict.fromkeys((*chart.order, *found)))
    colours = {key: PALETTE[index % len(PALETTE)] for index, key in enumerate(keys)}
    return tuple(Entry(key, colours[key], found[key]) for key in keys if key in found)


def legend(chart: Chart) -> tuple[Entry, ...]:
    """The entries that are shown: those with a name."""
    return tuple(entry for entry in entries(chart) if entry.key)


def box(values: Values) -> Box | None:
    """The box of what is no gap in `values`; None where all are gaps.

    Quartiles are interpolated linearly between the sorted values. Whiskers end at the last value
    within 1.5 times the range between the quartiles, and not within the box (Tukey 1977).
    """
    known = [value for value in values if not is_gap(value)]
    if not known:
        return None
    ordered = sorted(value for value in known if value is not None)
    lower, middle, upper = (
        quantiles(ordered, method="inclusive") if len(ordered) > 1 else [median(ordered)] * 3
    )
    reach = WHISKER * (upper - lower)
    inside = [value for value in ordered if lower - reach <= value <= upper + reach]
    outliers = tuple(value for value in ordered if value not in inside)
    ends = min(inside[0], lower), max(inside[-1], upper)
    return Box(ends[0], lower, middle, upper, ends[1], outliers)


def segments(line: Line, panel: Panel) -> Iterator[tuple[list[float], list[float], list[float]]]:
    """The unbroken pieces of the band of `line`, each as its x, low and high."""
    piece: tuple[list[float], list[float], list[float]] = ([], [], [])
    for point in zip(line.x, line.low or (), line.high or (), strict=False):
        if any(is_gap(value) for value in point) or (panel.log_y and min(point[1:]) <= 0.0):  # type: ignore[type-var, operator]  # None is a gap
            if piece[0]:
                yield piece
            piece = ([], [], [])
            continue
        for part, value in zip(piece, point, strict=True):
            part.append(value)  # type: ignore[arg-type]  # None is a gap
    if piece[0]:
        yield piece


def greys(picture: Picture) -> list[list[float]]:
    """Pixels from 0 (the least) to 1 (the greatest), a gap NaN; all 0.5 where they are alike."""
    known = [v for row in picture.pixels for v in row if v is not None and not is_gap(v)]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def grey(value: float | None) -> float:
        if value is None or is_gap(value):
            return math.nan
        return (value - low) / (high - low) if high > low else 0.5

    return [[grey(value) for value in row] for row in picture.pixels]


def is_gap(value: float | None) -> bool:
    """Whether there is no number."""
    return value is None or math.isnan(value)


def rows_of(chart: Chart) -> tuple[int, int]:
    """Rows and columns of panels where there is room for all columns."""
    columns = max(1, min(chart.columns, len(chart.panels)))
    return max(1, math.ceil(len(chart.panels) / columns)), columns


def has_categories(panel: Panel) -> bool:
    """Whether names stand along the x axis of `panel`."""
    return any(isinstance(mark, Bars | Boxes | Heat) for mark in panel.marks)


def has_picture(panel: Panel) -> bool:
    """Whether `panel` has no axes."""
    return any(isinstance(mark, Picture) for mark in panel.marks)


def _series(chart: Chart) -> Iterator[Series]:
    for panel in chart.panels:
        for mark in panel.marks:
            if isinstance(mark, Points) and mark.values is not None:
                continue  # it has the colours of its values
            if isinstance(mark, Series):
                yield mark


def _kind(mark: Series) -> Kind:
    if isinstance(mark, Line):
        return "dashed" if mark.dashed else "line"
    return "points" if isinstance(mark, Points) else "area"
