"""Charts drawn by plotly: as a figure, and as a piece of a page that needs no network.

A page puts `head()` into its head once and any number of `fragment(chart)` into its body.
"""

import html
import math
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from study.charts import Chart, Heat, Panel, Picture, Reference
from study.charts_page import SCRIPT, STYLE
from study.charts_scale import FEW_COUNTS, counts_along_x, ends, short_log_ticks
from study.charts_style import (
    Entry,
    entries,
    has_categories,
    has_picture,
    legend,
    rows_of,
)
from study.charts_traces import legend_trace, traces

TEXT = "#767676"  # readable on white and on black, where no page says otherwise
GRID = "rgba(128, 128, 128, 0.25)"
AXIS = {
    "gridcolor": GRID,
    "linecolor": GRID,
    "zerolinecolor": GRID,
    "automargin": True,
    "title": {"standoff": 8},
}
LABEL = {"textposition": "end", "padding": 2, "font": {"size": 11}}
ROW_PX = 320
LEGEND_PX = 60


def figure(chart: Chart) -> go.Figure:
    """All panels in one figure, with plotly's own legend below them."""
    rows, columns = rows_of(chart)
    titles = [html.escape(panel.title) for panel in chart.panels]
    drawn = make_subplots(rows, columns, subplot_titles=titles)
    for entry in legend(chart):
        drawn.add_trace(legend_trace(entry), 1, 1)
    for index, panel in enumerate(chart.panels):
        _draw(drawn, panel, (index // columns + 1, index % columns + 1), entries(chart))
    _lay_out(drawn)
    drawn.update_layout(
        title={"text": html.escape(chart.title)},
        height=rows * ROW_PX + LEGEND_PX,
        margin={"l": 10, "r": 10, "t": 80, "b": 60},
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom"},
    )
    return drawn


def fragment(chart: Chart) -> str:
    """A <figure> for a page that has `head()`: as wide as its place, from 300 pixels.

    Panels stand beside one another where there is room. Entries of the legend are buttons that
    hide and show what they name. All text has the page's colour (CSS `color`), and so have lines
    of the grid, more faintly: a page that changes its colours, at any time, changes these.
    """
    shown = legend(chart)
    drawn = [_alone(chart, panel) for panel in chart.panels]
    parts = ['<figure class="chart">', f"<figcaption>{html.escape(chart.title)}</figcaption>"]
    if shown:
        parts.append(f'<p class="chart-legend">{"".join(map(_button, shown))}</p>')
    least = "7rem" if all(map(has_picture, chart.panels)) else "20rem"
    style = f"--columns: {rows_of(chart)[1]}; --least: {least}"
    parts.append(
        f'<div class="chart-panels" style="{style}">{"".join(map(_place, chart.panels))}</div>'
    )
    if chart.caption:
        parts.append(f'<p class="chart-caption">{html.escape(chart.caption)}</p>')
    data = f"[{','.join(drawn)}]".replace("</", "<\\/")
    parts.append(f'<script type="application/json">{data}</script>')
    parts.append("<script>drawChart(document.currentScript.parentElement)</script></figure>")
    return "\n".join(parts)


def head() -> str:
    """What a page with fragments needs in its head, once: style and `javascript()`."""
    return f"<style>{STYLE}</style>\n<script>{javascript()}</script>"


def javascript() -> str:
    """plotly.js, of which its package brings one build, and what draws the fragments; no tags."""
    return f"{get_plotlyjs()}\n{SCRIPT}"


def _alone(chart: Chart, panel: Panel) -> str:
    """A panel by itself, as JSON; its title and the legend are the page's."""
    drawn = make_subplots(1, 1)
    _draw(drawn, panel, (1, 1), entries(chart))
    _lay_out(drawn)
    drawn.update_layout(margin={"l": 4, "r": 4, "t": 12, "b": 4}, dragmode="zoom")
    return str(plotly.io.to_json(drawn, validate=False))


def _button(entry: Entry) -> str:
    name = html.escape(entry.key)
    chip = f'<i class="chart-{entry.kind}" style="--colour: {entry.colour}"></i>'
    return f'<button type="button" aria-pressed="true" value="{name}">{chip}{name}</button>'


def _place(panel: Panel) -> str:
    title = f"<b>{html.escape(panel.title)}</b>" if panel.title else ""
    kind = "chart-plot"
    style = ""
    for mark in panel.marks:
        if isinstance(mark, Picture):
            kind = "chart-plot chart-picture"
            style = f' style="--ratio: {len(mark.pixels[0])} / {len(mark.pixels)}"'
    return f'<div>{title}<div class="{kind}"{style}></div></div>'


def _draw(drawn: go.Figure, panel: Panel, place: tuple[int, int], known: tuple[Entry, ...]) -> None:
    """Draw `panel` at `place` (row, column)."""
    row, column = place
    colours = {entry.key: entry.colour for entry in known}
    for mark in panel.marks:
        for trace in traces(mark, panel, colours):
            drawn.add_trace(trace, row, column)
    _place_colour_bars(drawn, row, column)
    drawn.update_xaxes(**_axis(panel, along_x=True), row=row, col=column)
    drawn.update_yaxes(**_axis(panel, along_x=False), row=row, col=column)
    if panel.percent_y:
        drawn.update_yaxes(tickformat="~p", hoverformat=".2%", row=row, col=column)
    if has_categories(panel):
        drawn.update_xaxes(type="category", showgrid=False, row=row, col=column)
    if any(isinstance(mark, Heat) for mark in panel.marks):
        names = {"type": "category", "showgrid": False}
        drawn.update_yaxes(autorange="reversed", **names, row=row, col=column)
    if has_picture(panel):
        drawn.update_xaxes(visible=False, constrain="domain", row=row, col=column)
        x_axis = drawn.get_subplot(row, column).yaxis.anchor
        drawn.update_yaxes(
            visible=False,
            constrain="domain",
            scaleanchor=x_axis,
            autorange="reversed",
            row=row,
            col=column,
        )
    for line in panel.lines:
        _add_line(drawn, panel, line, row, column)


def _place_colour_bars(drawn: go.Figure, row: int, column: int) -> None:
    """Put the bars of colours of the panel at `row` and `column` beside it."""
    axes = drawn.get_subplot(row, column)
    (_, right), (bottom, top) = axes.xaxis.domain, axes.yaxis.domain
    place = {"x": right, "xanchor": "left", "y": (bottom + top) / 2, "len": top - bottom}
    here = {"row": row, "col": column}
    drawn.update_traces({"marker.colorbar": place}, {"marker.showscale": True}, **here)
    drawn.update_traces({"colorbar": place}, {"type": "heatmap", "showscale": None}, **here)


def _axis(panel: Panel, along_x: bool) -> dict[str, Any]:
    title, log, limits = (
        (panel.x_title, panel.log_x, panel.x_range)
        if along_x
        else (panel.y_title, panel.log_y, panel.y_range)
    )
    axis: dict[str, Any] = {"title": {"text": html.escape(title)}}
    if log:
        axis |= {"type": "log", "exponentformat": "power"}
        if ticks := short_log_ticks(panel, along_x):  # plotly would write 9 for 0.9
            axis |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    known = ends(panel, along_x)
    if along_x and counts_along_x(panel) and known and known[1] - known[0] <= FEW_COUNTS:
        axis["dtick"] = 1  # plotly would halve it
    if limits is not None:
        axis["range"] = [math.log10(end) for end in limits] if log else list(limits)
    return axis


def _add_line(drawn: go.Figure, panel: Panel, line: Reference, row: int, column: int) -> None:
    label = {**LABEL, "text": html.escape(line.label)}
    known = ends(panel, along_x=line.is_vertical)
    if line.is_vertical:
        label |= {"textangle": 0, "xanchor": "left", "yanchor": "top"}
    elif known is not None and line.at >= known[1]:
        label["yanchor"] = "top"  # as there is no room above it
    add = drawn.add_vline if line.is_vertical else drawn.add_hline
    style = {"dash": "dot", "width": 1.5, "color": TEXT}
    add(line.at, line=style, label=label, row=row, col=column)


def _lay_out(drawn: go.Figure) -> None:
    drawn.update_layout(
        template="none",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": TEXT},
        barmode="group",
        boxmode="group",
        showlegend=True,
    )
    drawn.update_xaxes(**AXIS)
    drawn.update_yaxes(**AXIS)
