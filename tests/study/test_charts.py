"""Charts: one definition, drawn by plotly and by matplotlib, on a page that needs no network."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import Locator, expect, sync_playwright

from study import charts_plotly, charts_png
from study.charts import (
    Bars,
    Boxes,
    Chart,
    Heat,
    Line,
    Mark,
    Panel,
    Picture,
    Points,
    Reference,
)
from study.charts_scale import counts_along_x, ends, short_log_ticks
from study.charts_style import (
    PALETTE,
    box,
    entries,
    greys,
    legend,
    segments,
)

CHROMIUM = shutil.which("chromium")

X = (1.0, 2.0, 3.0, 4.0)
LINE = Line("vit", X, (0.1, None, 0.3, 0.4), low=(0.0, 0.1, 0.2, 0.3), high=(0.2, 0.3, 0.4, 0.5))
POINTS = Points("vitbn", X, (1.0, 2.0, math.nan, 4.0), labels=("a", "b<c", "d", "e"))
VALUED = Points("all", X, X, values=(0.5, 0.6, 0.7, None), values_label="accuracy")
BARS = Bars("vit", ("train", "test"), (3.0, None), low=(2.0, None), high=(5.0, None))
BOXES = Boxes("vit", ("1e-3", "1e-2"), ((1.0, 2.0, 3.0, 4.0, 50.0), (5.0, None, 6.0)))
HEAT = Heat(("1", "2"), ("a", "b"), ((1.0, None), (3.0, 4.0)), (("x", ""), ("y", "z")))
PICTURE = Picture(((1.0, 3.0), (None, 2.0)))
MARKS: tuple[Mark, ...] = (LINE, POINTS, VALUED, BARS, BOXES, HEAT, PICTURE)


def chart_of(*marks: Mark, **options: Any) -> Chart:
    """A panel of its own for each mark."""
    return Chart("test", "A chart", tuple(Panel("p", "x", "y", (m,), **options) for m in marks))


def traces(chart: Chart) -> list[dict[str, Any]]:
    """What plotly is given, as it stands in a page; without the legend's entries."""
    figure = json.loads(str(charts_plotly.figure(chart).to_json()))
    return [trace for trace in figure["data"] if trace.get("x") != [None]]


def pixels(chart: Chart) -> np.ndarray[Any, Any]:
    """The PNG of a chart as (height, width, 3) from 0 to 255."""
    image = imread(io.BytesIO(charts_png.png(chart)), format="png")
    return np.asarray((image[..., :3] * 255).round(), dtype=int)


def has_colour(chart: Chart, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels(chart) == wanted).all(axis=2).sum() > 20)


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: type(mark).__name__)
def test_each_mark_is_drawn_by_both(mark: Mark, tmp_path: Path) -> None:
    chart = chart_of(mark)
    assert len(traces(chart)) == (2 if mark is LINE else 1)
    charts_png.write_png(chart, tmp_path / "chart.png")
    shown = imread(tmp_path / "chart.png")
    empty = imread(io.BytesIO(charts_png.png(Chart("e", "A chart", (Panel("p", "x", "y", ()),)))))
    assert shown.shape[2] == 4
    assert shown.shape != empty.shape or not np.array_equal(shown, empty)


def test_plotly_has_the_values_of_the_chart_and_gaps_stay_gaps() -> None:
    band, line = traces(chart_of(LINE))
    assert (line["x"], line["y"]) == ([1.0, 2.0, 3.0, 4.0], [0.1, None, 0.3, 0.4])
    assert line["connectgaps"] is False
    assert band["y"] == [0.0, 0.1, 0.2, 0.3, 0.5, 0.4, 0.3, 0.2, None]
    (points,) = traces(chart_of(POINTS))
    assert points["y"] == [1.0, 2.0, None, 4.0]
    assert points["text"][1] == "b&lt;c"
    (valued,) = traces(chart_of(VALUED))
    assert valued["marker"]["color"] == [0.5, 0.6, 0.7, None]
    assert valued["y"] == [1.0, 2.0, 3.0, None]
    assert valued["marker"]["colorbar"]["title"]["text"] == "accuracy"
    (bars,) = traces(chart_of(BARS))
    assert (bars["x"], bars["y"]) == (["train", "test"], [3.0, None])
    assert bars["error_y"]["array"] == [2.0, None]
    assert bars["error_y"]["arrayminus"] == [1.0, None]
    (boxes,) = traces(chart_of(BOXES))
    assert boxes["median"] == [3.0, 5.5]
    assert boxes["y"] == [[50.0], [None]]
    (boxes,) = traces(chart_of(replace(BOXES, values=BOXES.values[::-1])))
    assert boxes["y"] == [[None], [50.0]]  # were the first empty, plotly would draw nothing
    (heat,) = traces(chart_of(HEAT))
    assert (heat["z"], heat["text"]) == ([[1.0, None], [3.0, 4.0]], [["x", ""], ["y", "z"]])
    (picture,) = traces(chart_of(PICTURE))
    assert picture["customdata"] == [[1.0, 3.0], [None, 2.0]]
    assert picture["z"] == [[0.0, 1.0], [None, 0.5]]


def test_a_gap_breaks_the_line_in_the_png() -> None:
    whole = Line("", X, (1.0, 1.0, 1.0, 1.0), markers=False)
    broken = Line("", X, (1.0, None, 1.0, 1.0), markers=False)

    def drawn(line: Line) -> int:
        blue = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
        return int((pixels(chart_of(line)) == blue).all(axis=2).sum())

    assert drawn(broken) == pytest.approx(drawn(whole) / 3, rel=0.1)


def test_a_name_has_one_colour_in_all_panels_and_both_drawings() -> None:
    first = Line("a", X, X)
    second = Line("b", X, X, markers=False)
    third = Bars("c", ("x", "y"), (1.0, 2.0), group="b")
    chart = Chart("test", "", (Panel("", "", "", (first,)), Panel("", "", "", (second, third))))
    one, two, three = traces(chart)
    assert one["line"]["color"] == PALETTE[0]
    assert two["line"]["color"] == three["marker"]["color"] == PALETTE[1]
    assert {trace["legendgroup"] for trace in (two, three)} == {"b"}
    only_second = Chart("test", "", (Panel("", "", "", (Line("a", (), ()), second)),))
    assert has_colour(only_second, PALETTE[1])
    assert not has_colour(chart_of(second), PALETTE[1])
    assert has_colour(chart_of(second), PALETTE[0])


def test_the_legend_has_each_name_once() -> None:
    chart = chart_of(LINE, BARS, POINTS, VALUED, HEAT)
    assert [(entry.key, entry.kind) for entry in legend(chart)] == [
        ("vit", "line"),
        ("vitbn", "points"),
    ]
    shown = json.loads(str(charts_plotly.figure(chart).to_json()))["data"]
    named = [t["name"] for t in shown if t.get("showlegend", True) and "name" in t]
    assert named == ["vit", "vitbn"]
    assert legend(chart_of(Line("", X, X))) == ()
    many = chart_of(*(Line(str(n), X, X) for n in range(len(PALETTE) + 1)))
    assert [entry.colour for entry in entries(many)] == [*PALETTE, PALETTE[0]]


def test_charts_of_one_order_agree_in_their_colours() -> None:
    panels = chart_of(POINTS).panels
    chart = Chart("test", "", panels, order=("vit", "vitbn"))
    assert [(entry.key, entry.colour) for entry in legend(chart)] == [("vitbn", PALETTE[1])]
    assert traces(chart)[0]["marker"]["color"] == PALETTE[1]
    assert has_colour(chart, PALETTE[1])


def test_axes_are_as_the_panel_says() -> None:
    panel = Panel(
        "a & b", "lr", "accuracy", (Line("a", X, X),), log_x=True, percent_y=True,
        x_range=(0.1, 100.0), y_range=(0.5, 1.0),
        lines=(Reference(0.9, "the <best>"), Reference(2.0, "step", is_vertical=True)),
    )  # fmt: skip
    layout = json.loads(str(charts_plotly.figure(Chart("t", "", (panel,))).to_json()))["layout"]
    assert (layout["xaxis"]["type"], layout["xaxis"]["range"]) == ("log", [-1.0, 2.0])
    assert (layout["yaxis"]["tickformat"], layout["yaxis"]["range"]) == ("~p", [0.5, 1.0])
    across, upright = layout["shapes"]
    assert (across["y0"], across["y1"], across["label"]["text"]) == (0.9, 0.9, "the &lt;best&gt;")
    assert (upright["x0"], upright["x1"]) == (2.0, 2.0)
    assert charts_png.png(Chart("t", "", (panel,)))[:4] == b"\x89PNG"


def test_a_short_logarithmic_axis_has_plain_numbers() -> None:
    short = Panel("", "", "", (Line("a", X, (0.6, 0.9, 2.0, 4.0)),), log_y=True)
    wide = Panel("", "", "", (Line("a", X, (1e-5, 0.9, 2.0, 4.0)),), log_y=True)
    layouts = [
        json.loads(str(charts_plotly.figure(Chart("t", "", (panel,))).to_json()))["layout"]
        for panel in (short, wide)
    ]
    assert {"0.5", "1", "2", "5"} <= set(layouts[0]["yaxis"]["ticktext"])
    assert "ticktext" not in layouts[1]["yaxis"]
    assert ends(short, along_x=True) == (1.0, 4.0)
    assert short_log_ticks(Panel("", "", "", (), log_y=True), along_x=False) is None


def test_a_band_breaks_where_it_has_no_place() -> None:
    line = Line("a", X, X, low=(1.0, 0.0, 1.0, None), high=(2.0, 2.0, 2.0, 2.0))
    plain, log = Panel("", "", "", (line,)), Panel("", "", "", (line,), log_y=True)
    assert [piece[0] for piece in segments(line, plain)] == [[1.0, 2.0, 3.0]]
    assert [piece[0] for piece in segments(line, log)] == [[1.0], [3.0]]


def test_a_box_is_tukeys() -> None:
    found = box((1.0, 2.0, 3.0, 4.0, math.nan, 50.0))
    assert found is not None
    assert (found.lower_quartile, found.median, found.upper_quartile) == (2.0, 3.0, 4.0)
    assert (found.low, found.high, found.outliers) == (1.0, 4.0, (50.0,))
    assert box((None, math.nan)) is None
    single = box((2.0,))
    assert single is not None
    assert (single.low, single.median, single.high) == (2.0, 2.0, 2.0)
    skewed = box((0.1, 0.9, 0.95, 0.96))
    assert skewed is not None
    assert skewed.low == skewed.lower_quartile  # no whisker points into its box


def test_greys_span_black_to_white() -> None:
    assert greys(Picture(((1.0, 2.0), (3.0, 2.0)))) == [[0.0, 0.5], [1.0, 0.5]]
    assert greys(Picture(((4.0, 4.0),))) == [[0.5, 0.5]]
    assert math.isnan(greys(PICTURE)[1][0])


def test_values_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="vit: 4 values beside 3"):
        Line("vit", X, (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="a row: 2 values beside 1"):
        Heat(("1", "2"), ("a",), ((1.0,),))


def test_a_fragment_refers_to_no_network() -> None:
    fragment = charts_plotly.fragment(chart_of(*MARKS))
    assert not re.search(r"https?:|src=|href=|@import|url\(", fragment)
    assert len(fragment) < 40_000  # without plotly.js
    assert "</" not in re.findall(r"json\">(.*?)</script>", fragment)[0]
    assert len(charts_plotly.javascript()) > 1_000_000
    assert "</script" not in charts_plotly.javascript()


def test_names_cannot_become_markup() -> None:
    evil = "</script><script>alert(1)</script>"
    fragment = charts_plotly.fragment(
        Chart("t", evil, (Panel(evil, evil, evil, (Line(evil, X, X), LINE)),))
    )
    assert "<script>alert" not in fragment


@pytest.fixture(scope="module")
def page_of_charts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with two charts, in light colours."""
    charts = chart_of(*MARKS), chart_of(LINE, POINTS)
    fragments = [charts_plotly.fragment(chart) for chart in charts]
    style = "<style>body {color: rgb(1, 2, 3)} .dark {color: rgb(250, 251, 252)}</style>"
    path = tmp_path_factory.mktemp("page") / "page.html"
    head = f"<!doctype html><meta charset=utf-8>{style}{charts_plotly.head()}"
    path.write_text(f"{head}<body>{''.join(fragments)}")
    return path.as_uri()


def _top(place: Locator) -> float:
    box = place.bounding_box()
    assert box is not None
    return box["y"]


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_browser_draws_a_page_of_charts(page_of_charts: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(page_of_charts)
        expect(page.locator(".chart-plot .plot-container")).to_have_count(len(MARKS) + 2)
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        first, second = page.locator(".chart-plot").nth(0), page.locator(".chart-plot").nth(1)
        assert _top(first) < _top(second)  # below one another
        page.set_viewport_size({"width": 1400, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400
        assert _top(first) == _top(second)
        expect(page.locator(".xtick text").first).to_have_css("fill", "rgb(1, 2, 3)")
        page.evaluate("document.body.className = 'dark'")
        expect(page.locator(".xtick text").first).to_have_css("fill", "rgb(250, 251, 252)")
        chart = page.locator(".chart").nth(1)
        expect(chart.locator(".scatterlayer .points path")).to_have_count(3 + 3)
        chart.get_by_role("button", name="vitbn").click()
        expect(chart.locator(".scatterlayer .points path")).to_have_count(3)
        browser.close()


@pytest.mark.parametrize("last", [4, 20, 30])
def test_counts_have_whole_ticks(last: int) -> None:
    epochs = tuple(map(float, range(1, last + 1)))
    panel = Panel("", "epoch", "", (Line("vit", epochs, epochs),))
    chart = Chart("c", "", (panel,))
    ticks = charts_png._figure(chart, 72).axes[0].get_xticks()
    assert len(ticks) > 3
    assert all(tick == round(tick) for tick in ticks)
    assert charts_plotly.figure(chart).layout.xaxis.dtick == (1 if last == 4 else None)


def test_what_is_no_count_has_ticks_between() -> None:
    for x in ((1.0, 1.5, 4.0), (1.0, None, 4.0), ()):
        panel = Panel("", "s", "", (Line("vit", x, (0.0,) * len(x)),))
        assert not counts_along_x(panel)
