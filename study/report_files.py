"""Reports as files, and where people browse: in MLflow and in Optuna Dashboard."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from models.errors import InputError
from study.attachments import attach
from study.charts_png import write_png
from study.report import Report
from study.report_html import html
from study.report_text import csv, json_text, markdown
from study.settings import Settings
from study.storage import Store, tracking_uri
from study.studies import find_study, runs_of
from study.tracking import open_tracker, probe_tracking

FORMATS = ("html", "md", "json", "csv")
LAYOUTS = ("comparison", "blog")
DEFAULT_FILE = Path("report.html")
MLFLOW_FOLDER = "report"


def check_output(output: Path | None, format_: str) -> Path | None:
    """Where the report goes; None: to standard output. Raises InputError."""
    if format_ not in FORMATS:
        raise InputError(f"unknown --format '{format_}'; write one of {', '.join(FORMATS)}")
    path = DEFAULT_FILE if output is None and format_ == "html" else output
    if path is not None:
        check_file(path)
    return path


def check_file(path: Path) -> None:
    """Raise InputError where no file can be written there."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to write {path.name} into")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{path} cannot be written: permission denied; name another file with -o")


def check_layout(layout: str, outside: Path | None) -> None:
    """Raise InputError for a layout that is not known, or one that takes no outside results."""
    if layout not in LAYOUTS:
        raise InputError(f"unknown --layout '{layout}'; write {' or '.join(LAYOUTS)}")
    if outside is not None and layout != "blog":
        raise InputError("--outside is for --layout blog")


def write_report(report: Report, format_: str, path: Path | None) -> list[str]:
    """Write the report, or print it; returns the files. Markdown gets its figures beside it."""
    if path is None:
        print(_rendered(report, format_), end="")
        return []
    if format_ == "md":
        return _write_markdown(report, path)
    path.write_text(_rendered(report, format_))
    return [str(path)]


def publish_report(
    report: Report, store: Store, settings: Settings, names: Sequence[str]
) -> Iterator[str]:
    """Keep the report with each study, in MLflow's parent run and for the dashboard.

    Yields what was done, a line each; raises TrackingError.
    """
    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(html(report))
        pictures = [picture for _, picture in _pictures(report, Path(folder))]
        for name in names:
            attach(find_study(store, name), markdown(report), [page, *pictures], settings.data_dir)
        yield "kept with the studies: note and files in Optuna Dashboard"
        if not settings.is_tracking_off and _to_mlflow(store, settings, names, [page, *pictures]):
            yield f"kept with the studies: {MLFLOW_FOLDER}/ of their parent runs in MLflow"


def _to_mlflow(
    store: Store, settings: Settings, names: Sequence[str], files: Sequence[Path]
) -> bool:
    """Whether any of the studies is recorded in MLflow."""
    places = [runs for name in names if (runs := runs_of(find_study(store, name))) is not None]
    if not places:
        return False
    uri = tracking_uri(settings.mlflow_uri, store)
    probe_tracking(uri)
    tracker = open_tracker(uri)
    try:
        for runs in places:
            tracker.keep_files(runs.parent_run_id, files, MLFLOW_FOLDER)
    finally:
        tracker.disconnect()
    return True


def _rendered(report: Report, format_: str) -> str:
    renderers = {"html": html, "md": markdown, "json": json_text, "csv": csv}
    return renderers[format_](report)


def _write_markdown(report: Report, path: Path) -> list[str]:
    folder = path.with_name(f"{path.stem}-figures")
    folder.mkdir(exist_ok=True)
    pictures = [(name, picture) for name, picture in _pictures(report, folder)]
    places = {name: quote(f"{folder.name}/{picture.name}") for name, picture in pictures}
    path.write_text(markdown(report, places))
    return [str(path), *(str(picture) for _, picture in pictures)]


def _pictures(report: Report, folder: Path) -> Iterator[tuple[str, Path]]:
    """Draw all figures into `folder`; their names and files."""
    for chart in report.charts:
        picture = folder / f"{chart.name}.png"
        write_png(chart, picture)
        yield chart.name, picture
