"""Reports: what they are made of, and that they come out the same in every form."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import optuna_dashboard
import pytest
from rich.console import Console

from models.errors import InputError
from study import report_text
from study.charts import Chart, Line, Panel
from study.cli_options import print_table
from study.comparison_report import Asked, Compared, read_compared, report_of
from study.comparison_requests import named_studies
from study.data_dir import dashboard_files
from study.errors import IncompleteError, UnequalError
from study.experiment_requests import planned
from study.plan import Plan
from study.report import Report, Section, named
from study.report_files import check_output, publish_report, write_report
from study.report_html import html
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.storage import Store
from study.studies import find_study
from study.tabular import Tabular
from study.ui_links import links_of
from tests.conftest import SUBSET, TINY
from tests.study.conftest import train
from tests.study.results import result_of, run_of

Search = Callable[..., Session]

TABLE = Tabular("t", "A table", ("name", "x | y"), (("<b>", "1"), ("b", "−2")), notes=("a note",))
CHART = Chart("c", "A chart", (Panel("p", "x", "y", (Line("l", (1.0, 2.0), (3.0, 4.0)),)),))
REPORT = Report(
    "A <title>",
    "Which?",
    ("this & that",),
    (Section("First", ("A paragraph.", TABLE)), Section("Second", (CHART,))),
    (("a run", "http://host/#/experiments/1?a=b&c=d"),),
)
SWEEP = Plan("sweep", ((1e-3, 50), (3e-3, 50)), seeds=2, trained_on="train")


class Cells(HTMLParser):
    """The texts of a page's table cells, and the addresses that it would load from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loaded: list[str] = []
        self._is_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_cell = tag in ("td", "th")
        given = dict(attrs)
        if tag != "a":
            self.loaded += [v for key in ("src", "href") if (v := given.get(key))]

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.cells.append(data)


def test_all_forms_say_the_same() -> None:
    page = Cells(html(REPORT))
    assert page.cells == ["name", "x | y", "<b>", "1", "b", "−2"]
    rows = list(csv.reader(io.StringIO(report_text.csv(REPORT))))
    assert rows == [["table", "name", "x | y"], ["t", "<b>", "1"], ["t", "b", "−2"]]
    told = json.loads(report_text.json_text(REPORT))
    assert told["tables"]["t"] == [{"name": "<b>", "x | y": "1"}, {"name": "b", "x | y": "−2"}]
    assert told["verdicts"] == ["this & that"]
    text = report_text.markdown(REPORT, {"c": "c.png"})
    assert "| name | x \\| y |" in text
    assert "![A chart](c.png)" in text
    assert "a note" in text


def test_a_table_wider_than_the_terminal_is_printed_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = replace(TABLE, headings=("name", "a heading"), rows=(("<b>", "1" * 40), ("[red]", "2")))
    for width in (120, 30):
        print_table(Console(width=width, force_terminal=True, color_system=None), wide)
        said = capsys.readouterr().out
        assert "1" * 40 in said
        assert "[red]" in said
        assert ("    a heading  2" in said) == (width == 30)


def test_two_figures_of_one_name_are_refused_and_can_be_told_apart() -> None:
    with pytest.raises(AssertionError, match="stands twice"):
        replace(REPORT, sections=(*REPORT.sections, REPORT.sections[1]))
    again = Section("Third", tuple(named(REPORT.sections[1].blocks, "other")))
    told = replace(REPORT, sections=(*REPORT.sections, again))
    assert [chart.name for chart in told.charts] == ["c", "other-c"]


@pytest.mark.parametrize(
    ("place", "said"),
    [("nowhere/report.html", "there is no folder"), (".", "is a folder; name a file in it")],
)
def test_a_report_is_not_made_where_it_cannot_be_written(
    tmp_path: Path, place: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_output(tmp_path / place, "html")


def test_a_page_loads_nothing_and_escapes_what_it_is_told() -> None:
    page = html(REPORT)
    assert Cells(page).loaded == ["data:,"]
    assert "<title>A &lt;title&gt;</title>" in page
    assert "this &amp; that" in page


def test_the_verdict_stands_first() -> None:
    both = (result_of("vit", [run_of(1, 0.9)]), result_of("vitbn", [run_of(1, 0.8)]))
    names = tuple(result.name for result in both)
    page = html(report_of(Compared(both, {}, (), Asked(names))))
    order = [page.index(part) for part in ("Verdict</b>", "<h2>Accuracy", "<h2>Methods")]
    assert order == sorted(order)


@pytest.fixture(scope="module")
def pair(settings: Settings, store: Store) -> tuple[str, str]:
    """Two models swept alike, in a real store and MLflow."""
    assert store.engine is not None  # it is the one that the sessions join
    for model in ("vit", "vitbn"):
        base = Request(
            model=model,
            switches=TINY,
            dataset=SUBSET,
            epochs=2,
            device="cpu",
            study=f"swept-{model}",
        )
        asked = planned(replace(base, train_images=200), SWEEP)
        with open_session(asked, settings, lambda _: None) as session:
            train(session)
    return "swept-vit", "swept-vitbn"


def test_a_report_on_real_runs_is_kept_where_people_browse(
    store: Store, settings: Settings, pair: tuple[str, str], tmp_path: Path
) -> None:
    compared = read_compared(store, Asked(pair))
    links = tuple(links_of(settings, compared.results))
    found = report_of(compared, links)
    assert write_report(found, "html", tmp_path / "r.html") == [str(tmp_path / "r.html")]
    list(publish_report(found, store, settings, pair))
    again = list(publish_report(found, store, settings, pair))  # replaces what was there
    assert len(again) == 2
    study = find_study(store, pair[0])
    assert "no verdict: fewer than 5 seeds" in optuna_dashboard.get_note(study)
    attributes = store.storage.get_study_system_attrs(study._study_id)
    kept = [v for k, v in attributes.items() if k.startswith("artifacts:")]
    names = [json.loads(value)["filename"] for value in kept if json.loads(value)]
    assert sorted(names) == sorted({*names})
    assert {"report.html", "curves-1.png", "times.png"} <= set(names)
    for value in filter(None, map(json.loads, kept)):
        assert (dashboard_files(settings.data_dir) / value["artifact_id"]).stat().st_size > 0
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    parent = study.user_attrs["mlflow_parent_run_id"]
    assert "report/report.html" in {file.path for file in client.list_artifacts(parent, "report")}
    experiment = study.user_attrs["mlflow_experiment_id"]
    assert any(f"/#/experiments/{experiment}/runs?" in address for _, address in links)


def test_markdown_has_its_figures_beside_it(
    store: Store, settings: Settings, pair: tuple[str, str], tmp_path: Path
) -> None:
    found = report_of(read_compared(store, Asked(pair)))
    written = write_report(found, "md", tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert settings.data_dir.name not in text
    for chart in found.charts:
        assert f"](r-figures/{chart.name}.png)" in text
        assert str(tmp_path / "r-figures" / f"{chart.name}.png") in written
        assert (tmp_path / "r-figures" / f"{chart.name}.png").read_bytes().startswith(b"\x89PNG")


def test_searches_are_compared_without_a_verdict(
    store: Store, small: Request, search: Search
) -> None:
    names = [f"{small.study_name}-{model}" for model in ("vit", "vitbn")]
    for name, model in zip(names, ("vit", "vitbn"), strict=True):
        search(small, model=model, study=name, train_images=200)
    found = report_of(read_compared(store, Asked(tuple(names))))
    assert found.verdicts[0].startswith("accuracy: no verdict: a search trains each configuration")
    (table, *_) = found.tables
    assert [row[0] for row in table.rows] == names
    assert {chart.name for chart in found.charts} >= {"searches", "space"}
    search(planned(replace(small, study="one-more", train_images=100), SWEEP))
    with pytest.raises(UnequalError, match="cannot be compared with runs of given values"):
        read_compared(store, Asked((names[0], "one-more")))


def test_what_is_missing_is_said(
    store: Store, settings: Settings, small: Request, pair: tuple[str, str]
) -> None:
    with open_session(planned(small, SWEEP), settings, lambda _: None):
        pass
    said = r"is not finished: 4 of 4 trials left \(of seeds 0-1\); go on with the command"
    with pytest.raises(IncompleteError, match=said):
        read_compared(store, Asked((pair[0], small.study_name)))


def test_models_stand_for_their_fits_or_their_searches(store: Store) -> None:
    assert named_studies(store, [], "vit,vitbn", "mnist") == ("mnist-vit", "mnist-vitbn")
    with pytest.raises(InputError, match="one of both"):
        named_studies(store, [], None, "mnist")
    with pytest.raises(InputError, match="named twice"):
        named_studies(store, ["a", "a"], None, "mnist")


def test_a_report_needs_a_format_and_a_folder(tmp_path: Path) -> None:
    assert check_output(None, "html") == Path("report.html")
    assert check_output(None, "csv") is None
    with pytest.raises(InputError, match="unknown --format 'pdf'; write one of html, md"):
        check_output(None, "pdf")
    with pytest.raises(InputError, match="there is no folder"):
        check_output(tmp_path / "missing" / "r.html", "html")
