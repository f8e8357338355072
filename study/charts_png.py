"""Charts drawn by matplotlib as PNG, without a browser and without pyplot's global state."""

import io
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from study.charts import Chart, Heat, Panel
from study.charts_axes import draw
from study.charts_scale import counts_along_x, short_log_ticks
from study.charts_style import Entry, entries, has_picture, legend, rows_of

PANEL_INCHES = (5.4, 3.5)
PICTURE_INCHES = (1.5, 1.65)
LEAST_INCHES = 4.0  # width
EDGE_INCHES = 0.1
TITLE_INCHES = 0.26  # a line of it
CAPTION_INCHES = 0.18
LEGEND_INCHES = 0.25
ENTRY_INCHES = 1.8  # width of an entry of the legend, at least
SYMBOL_INCHES = 0.5  # of it what stands before the name
LETTER_INCHES = 0.08
TITLE_CHARACTERS, CAPTION_CHARACTERS = 9, 14  # in an inch
FINE_GRID: dict[str, Any] = {"color": "0.9", "linewidth": 0.8}


def write_png(chart: Chart, path: Path, dpi: int = 120) -> None:
    """Write `chart` as a PNG file. Raises OSError."""
    path.write_bytes(png(chart, dpi))


def png(chart: Chart, dpi: int = 120) -> bytes:
    """`chart` as a PNG file's contents, on white."""
    file = io.BytesIO()
    canvas = FigureCanvasAgg(_figure(chart, dpi))
    canvas.print_png(file)  # type: ignore[no-untyped-call]  # it draws once; `savefig` twice
    return file.getvalue()


def _figure(chart: Chart, dpi: int) -> Figure:
    """Title, legend, panels and caption below one another, each in a strip of its own."""
    rows, columns = rows_of(chart)
    panel_width, panel_height = (
        PICTURE_INCHES if all(map(has_picture, chart.panels)) else PANEL_INCHES
    )
    width = max(columns * panel_width, LEAST_INCHES)
    title = textwrap.wrap(chart.title, int(width * TITLE_CHARACTERS))
    caption = textwrap.wrap(chart.caption, int(width * CAPTION_CHARACTERS))
    shown = legend(chart)
    longest = max((len(entry.key) for entry in shown), default=0)
    entry_inches = max(ENTRY_INCHES, SYMBOL_INCHES + longest * LETTER_INCHES)
    in_a_row = max(1, int(width // entry_inches))
    legend_inches = LEGEND_INCHES * math.ceil(len(shown) / in_a_row)
    above = TITLE_INCHES * len(title) + legend_inches + EDGE_INCHES
    below = CAPTION_INCHES * len(caption) + EDGE_INCHES
    height = above + rows * panel_height + below
    drawn = Figure((width, height), dpi=dpi)
    drawn.set_layout_engine(
        "constrained", rect=(0.0, below / height, 1.0, rows * panel_height / height)
    )
    left, top = EDGE_INCHES / width, 1.0 - EDGE_INCHES / height
    drawn.text(left, top, "\n".join(title), va="top", fontsize=12, fontweight="bold")
    drawn.text(left, EDGE_INCHES / height, "\n".join(caption), fontsize=9, color="0.35")
    colours = {entry.key: entry.colour for entry in entries(chart)}
    places = drawn.subplots(rows, columns, squeeze=False).flatten()
    for panel, axes in zip(chart.panels, places, strict=False):
        _draw_panel(panel, axes, colours)
    for axes in places[len(chart.panels) :]:
        axes.axis("off")
    if shown:
        drawn.legend(
            handles=[_handle(entry) for entry in shown],
            loc="upper left",
            bbox_to_anchor=(0.0, 1.0 - TITLE_INCHES * len(title) / height),
            ncols=in_a_row,
            frameon=False,
            fontsize=9,
        )
    return drawn


def _draw_panel(panel: Panel, axes: Axes, colours: Mapping[str, str]) -> None:
    axes.set_title(panel.title, fontsize=9 if has_picture(panel) else 10)
    if has_picture(panel):
        axes.axis("off")
    else:
        _set_axes(panel, axes)
    for mark in panel.marks:
        draw(mark, panel, axes, colours)
    if panel.x_range is not None:
        axes.set_xlim(panel.x_range)
    if panel.y_range is not None:
        axes.set_ylim(panel.y_range)
    _thin_out_ticks(panel, axes)
    for line in panel.lines:
        style: dict[str, Any] = {"color": "0.45", "linewidth": 1.2, "linestyle": ":"}
        text: dict[str, Any] = {"fontsize": 8, "color": "0.35", "textcoords": "offset points"}
        if line.is_vertical:
            axes.axvline(line.at, **style)
            place, frame, side, shift = (line.at, 1.0), axes.get_xaxis_transform(), "left", (3, -9)
        else:
            axes.axhline(line.at, **style)
            place, frame, side, shift = (1.0, line.at), axes.get_yaxis_transform(), "right", (-2, 3)
        axes.annotate(line.label, place, shift, xycoords=frame, ha=side, **text)


def _set_axes(panel: Panel, axes: Axes) -> None:
    axes.set_xlabel(panel.x_title, fontsize=9)
    axes.set_ylabel(panel.y_title, fontsize=9)
    axes.tick_params(which="both", labelsize=8, color="0.8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.8")
    if not any(isinstance(mark, Heat) for mark in panel.marks):
        axes.grid(True, **FINE_GRID)
        axes.set_axisbelow(True)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    elif panel.percent_y:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _thin_out_ticks(panel: Panel, axes: Axes) -> None:
    """Whole numbers of counts; plain ones along a logarithmic axis of under two powers of ten."""
    if counts_along_x(panel):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, is_log in ((axes.xaxis, panel.log_x), (axes.yaxis, panel.log_y)):
        ticks = short_log_ticks(panel, along_x=axis is axes.xaxis)
        if is_log and ticks is not None:
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _handle(entry: Entry) -> Patch | Line2D:
    if entry.kind == "area":
        return Patch(color=entry.colour, label=entry.key)
    if entry.kind == "points":
        return Line2D([], [], color=entry.colour, label=entry.key, marker="o", linestyle="none")
    line = Line2D([], [], color=entry.colour, label=entry.key, linewidth=2)
    line.set_linestyle("--" if entry.kind == "dashed" else "-")
    return line
