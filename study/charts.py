"""A figure as data, defined once and drawn twice: by `charts_plotly` and by `charts_png`.

Nothing here imports what draws. Numbers are floats; None or NaN is a gap.
"""

from dataclasses import dataclass
from typing import Literal

Values = tuple[float | None, ...]
Symbol = Literal["circle", "cross", "triangle"]


@dataclass(frozen=True)
class Line:
    """A series, with a band between `low` and `high` where they are given.

    Lines of one `group` share a colour and an entry of the legend, over all panels; without one
    those of a name do.
    """

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    group: str | None = None
    dashed: bool = False
    markers: bool = True
    labels: tuple[str, ...] = ()  # of the points, where a pointer rests on them

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.x, self.y, self.low, self.high, self.labels or None)


@dataclass(frozen=True)
class Points:
    """Points by themselves; coloured by `values` where they are given.

    Those with a `values_label` have a bar of colours; what shares it has the same `values_range`.
    """

    name: str
    x: Values
    y: Values
    labels: tuple[str, ...] = ()  # where a pointer rests on them
    symbol: Symbol = "circle"
    values: Values | None = None
    values_label: str = ""  # of the bar of colours
    values_range: tuple[float, float] | None = None  # from its one end to the other
    group: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.x, self.y, self.values, self.labels or None)


@dataclass(frozen=True)
class Bars:
    """A bar for each category, with an error bar from `low` to `high` where they are given."""

    name: str
    categories: tuple[str, ...]
    values: Values
    low: Values | None = None
    high: Values | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.categories, self.values, self.low, self.high)


@dataclass(frozen=True)
class Boxes:
    """The quartiles of each category's values, whiskers to 1.5 times their range, and outliers."""

    name: str
    categories: tuple[str, ...]
    values: tuple[Values, ...]
    group: str | None = None

    def __post_init__(self) -> None:
        _check_lengths(self.name, self.categories, self.values)


@dataclass(frozen=True)
class Heat:
    """A table of colours, a row of `values` for each of `y_categories`, the first on top."""

    x_categories: tuple[str, ...]
    y_categories: tuple[str, ...]
    values: tuple[Values, ...]
    texts: tuple[tuple[str, ...], ...] = ()  # in the cells
    values_label: str = ""
    values_range: tuple[float, float] | None = None  # of the bar of colours

    def __post_init__(self) -> None:
        _check_lengths("rows", self.y_categories, self.values, self.texts or None)
        for row in (*self.values, *self.texts):
            _check_lengths("a row", self.x_categories, row)


@dataclass(frozen=True)
class Picture:
    """Numbers as a picture in grey, the least black and the greatest white; the top row first."""

    pixels: tuple[Values, ...]


Series = Line | Points | Bars | Boxes  # marks that have a colour of their own
Mark = Series | Heat | Picture


@dataclass(frozen=True)
class Reference:
    """A straight line over the whole panel at a value of y, or of x where it is vertical."""

    at: float
    label: str = ""
    is_vertical: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; a `Picture` has none."""

    title: str
    x_title: str
    y_title: str
    marks: tuple[Mark, ...]
    log_x: bool = False
    log_y: bool = False
    percent_y: bool = False  # values are shares in [0, 1]
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    lines: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Panels that share colours and one legend; a narrow page sets them below one another."""

    name: str  # the stem of its files
    title: str
    panels: tuple[Panel, ...]
    columns: int = 2  # at most
    caption: str = ""
    order: tuple[str, ...] = ()  # names that take the first colours, also where they do not appear


def _check_lengths(
    name: str, first: tuple[object, ...], *others: tuple[object, ...] | None
) -> None:
    for other in others:
        if other is not None and len(other) != len(first):
            raise ValueError(f"{name}: {len(first)} values beside {len(other)}")
