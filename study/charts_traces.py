"""Marks of a chart as plotly's traces, without a legend's entry."""

import html
import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from study.charts import Bars, Boxes, Heat, Line, Mark, Panel, Picture, Points, Values
from study.charts_style import (
    BAND_OPACITY,
    COLOUR_MAP,
    Entry,
    box,
    greys,
    is_gap,
    key_of,
    segments,
)

SYMBOLS = {"circle": "circle", "cross": "x", "triangle": "triangle-up"}
BAR = {"thickness": 12, "outlinewidth": 0, "tickfont": {"size": 10}}


def traces(mark: Mark, panel: Panel, colours: Mapping[str, str]) -> list[BaseTraceType]:
    """What draws `mark`; `colours` are by key."""
    match mark:
        case Line():
            return _line(mark, panel, colours[key_of(mark)])
        case Points():
            return [_points(mark, colours.get(key_of(mark)))]
        case Bars():
            return [_bars(mark, colours[key_of(mark)])]
        case Boxes():
            return [_boxes(mark, colours[key_of(mark)])]
        case Heat():
            return [_heat(mark)]
        case Picture():
            return [_picture(mark)]


def legend_trace(entry: Entry) -> BaseTraceType:
    """Nothing but an entry of the legend."""
    marker = {"color": entry.colour, "symbol": "square" if entry.kind == "area" else "circle"}
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers" if entry.kind in ("area", "points") else "lines",
        marker={**marker, "size": 10},
        line={"color": entry.colour, "dash": "dash" if entry.kind == "dashed" else "solid"},
        name=html.escape(entry.key),
        legendgroup=entry.key,
    )


def numbers(values: Values) -> list[float | None]:
    """`values` as plotly takes them: a gap is None."""
    return [None if is_gap(value) else value for value in values]


def _common(name: str, key: str) -> dict[str, Any]:
    return {"name": html.escape(name), "legendgroup": key, "showlegend": False}


def _line(line: Line, panel: Panel, colour: str) -> list[BaseTraceType]:
    x: list[float | None] = []
    y: list[float | None] = []
    for piece, low, high in segments(line, panel):
        x += [*piece, *reversed(piece), None]
        y += [*low, *reversed(high), None]
    common = _common(line.name, key_of(line))
    found = []
    if x:
        band = {"fill": "toself", "fillcolor": faint(colour), "line": {"width": 0}}
        found.append(go.Scatter(x=x, y=y, mode="lines", hoverinfo="skip", **band, **common))
    drawn = go.Scatter(
        x=numbers(line.x),
        y=numbers(line.y),
        mode="lines+markers" if line.markers else "lines",
        line={"color": colour, "width": 2, "dash": "dash" if line.dashed else "solid"},
        marker={"size": 6},
        connectgaps=False,
        **_hover(line.labels),
        **common,
    )
    return [*found, drawn]


def _points(points: Points, colour: str | None) -> BaseTraceType:
    marker: dict[str, Any] = {"size": 8, "symbol": SYMBOLS[points.symbol], "color": colour}
    y = points.y
    if points.values is not None:
        y = tuple(None if is_gap(v) else at for at, v in zip(y, points.values, strict=True))
        values = [math.nan if value is None else value for value in points.values]
        low, high = points.values_range or (None, None)
        marker |= {"color": values, "colorscale": COLOUR_MAP, "cmin": low, "cmax": high}
        if points.values_label:
            marker |= {"showscale": True, "colorbar": _bar(points.values_label)}
        marker["line"] = {"color": "#999999", "width": 0.7}  # the darkest show on a dark page
    return go.Scatter(
        x=numbers(points.x),
        y=numbers(y),
        mode="markers",
        marker=marker,
        **_hover(points.labels),
        **_common(points.name, key_of(points)),
    )


def _bar(label: str) -> dict[str, Any]:
    """Of colours."""
    return {**BAR, "title": {"text": html.escape(label), "side": "right"}}


def _hover(labels: tuple[str, ...]) -> dict[str, Any]:
    if not labels:
        return {}
    texts = [html.escape(label) for label in labels]
    return {"text": texts, "hovertemplate": "%{text}<br>(%{x}, %{y})"}


def _bars(bars: Bars, colour: str) -> BaseTraceType:
    error = None
    if bars.low is not None and bars.high is not None:
        triples = list(zip(bars.low, bars.values, bars.high, strict=True))
        error = {
            "symmetric": False,
            "array": [_distance(high, value) for _, value, high in triples],
            "arrayminus": [_distance(value, low) for low, value, _ in triples],
            "thickness": 1.5,
            "color": "#767676",
        }
    return go.Bar(
        x=list(bars.categories),
        y=numbers(bars.values),
        marker={"color": colour},
        error_y=error,
        **_common(bars.name, key_of(bars)),
    )


def _distance(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low


def _boxes(boxes: Boxes, colour: str) -> BaseTraceType:
    found = {c: box(v) for c, v in zip(boxes.categories, boxes.values, strict=True)}
    known = {category: one for category, one in found.items() if one is not None}
    # plotly draws nothing at all where the first of these is empty.
    outliers: list[list[float | None]] = [list(one.outliers) or [None] for one in known.values()]
    return go.Box(
        x=list(known),
        lowerfence=[one.low for one in known.values()],
        q1=[one.lower_quartile for one in known.values()],
        median=[one.median for one in known.values()],
        q3=[one.upper_quartile for one in known.values()],
        upperfence=[one.high for one in known.values()],
        y=outliers if any(one.outliers for one in known.values()) else None,
        boxpoints="all",
        pointpos=0,
        jitter=0.0,
        line={"color": colour, "width": 1.5},
        fillcolor=faint(colour),
        marker={"color": colour, "size": 4},
        **_common(boxes.name, key_of(boxes)),
    )


def _heat(heat: Heat) -> BaseTraceType:
    low, high = heat.values_range or (None, None)
    return go.Heatmap(
        x=list(heat.x_categories),
        y=list(heat.y_categories),
        z=[numbers(row) for row in heat.values],
        text=[[html.escape(text) for text in row] for row in heat.texts] or None,
        texttemplate="%{text}" if heat.texts else None,
        colorscale=COLOUR_MAP,
        colorbar=_bar(heat.values_label),
        zmin=low,
        zmax=high,
    )


def _picture(picture: Picture) -> BaseTraceType:
    return go.Heatmap(
        z=[numbers(tuple(row)) for row in greys(picture)],
        customdata=[numbers(row) for row in picture.pixels],
        hovertemplate="%{customdata:.3g}<extra></extra>",
        colorscale="Greys",
        reversescale=True,
        zmin=0.0,
        zmax=1.0,
        showscale=False,
    )


def faint(colour: str) -> str:
    """#RRGGBB for an area behind lines."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {BAND_OPACITY})"
