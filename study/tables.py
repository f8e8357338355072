"""Tables for the command line."""

from datetime import timedelta
from typing import Literal

from rich.table import Table
from rich.text import Text

from objectives.outcome import Outcome
from study.overview import Overview, TrialRow
from study.words import shown

_Columns = tuple[tuple[str, Literal["left", "right"]], ...]

_COLUMNS: _Columns = (
    ("trial", "right"),
    ("outcome", "left"),
    ("val. accuracy", "right"),
    ("lr", "right"),
    ("batch", "right"),
    ("epochs", "right"),
)
_SEARCHED: _Columns = (("suggested by", "left"), ("time", "right"))
_PLANNED: _Columns = (("seed", "right"), ("time", "right"))
_TESTED: _Columns = (("seed", "right"), ("test accuracy", "right"), ("time", "right"))
_STYLES = {
    Outcome.COMPLETE: "green",
    Outcome.PRUNED: "yellow",
    Outcome.DIVERGED: "magenta",
    Outcome.OOM: "magenta",
    Outcome.FAILED: "red",
    "running": "bold cyan",
    "waiting": "dim",
}


def studies_table(studies: list[Overview]) -> Table:
    """The studies for people."""
    table = plain_table("study", "model", "data")
    for heading in ("trials", "best val. accuracy", "epochs' worth"):
        table.add_column(heading, justify="right")
    for seen in studies:
        table.add_row(
            seen.study,
            seen.identity.title,
            seen.identity.dataset,
            f"{len(seen.ended)} of {len(seen.counted)}",
            f"{seen.best.val_accuracy:.2%}" if seen.best and seen.best.val_accuracy else "",
            f"{seen.epochs_trained:.1f}",
        )
    return table


def trials_table(seen: Overview, latest: int | None = None) -> Table:
    """The trials of a study that have begun, or only the `latest` of them."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    is_planned = seen.identity.is_planned
    is_tested = seen.identity.is_tested
    own_columns = _TESTED if is_tested else _PLANNED if is_planned else _SEARCHED
    others = [one.name for one in seen.identity.others]
    searched: _Columns = tuple((name, "right") for name in others)
    for heading, justify in _COLUMNS + searched + own_columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    best = None if is_planned else seen.best
    begun = [row for row in seen.trials if row.started is not None]
    for row in begun if latest is None else begun[-latest:]:
        style = "bold green" if best is not None and row.number == best.number else ""
        own = _planned_cells(row, is_tested) if is_planned else [row.suggested_by or ""]
        values = [shown(row.others[name]) if name in row.others else "" for name in others]
        cells = [*_cells(row, seen.identity.train_images), *values, *own, _took(row)]
        table.add_row(*cells, style=style)
    return table


def plain_table(*left_headings: str) -> Table:
    """A table without lines; more columns can be added."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in left_headings:
        table.add_column(heading, no_wrap=True)
    return table


def _took(row: TrialRow) -> str:
    if row.started is None or row.finished is None:
        return ""
    return str(timedelta(seconds=round((row.finished - row.started).total_seconds())))


def _planned_cells(row: TrialRow, is_tested: bool) -> list[str]:
    seed = "" if row.seed is None else str(row.seed)
    test = f"{row.test_accuracy:.2%}" if row.test_accuracy is not None else ""
    return [seed, test] if is_tested else [seed]


def _cells(row: TrialRow, train_images: int) -> list[str | Text]:
    return [
        str(row.number),
        Text(row.outcome, style=_STYLES.get(row.outcome, "")),
        f"{row.val_accuracy:.2%}" if row.val_accuracy is not None else "",
        f"{row.lr:.2e}" if row.lr is not None else "",
        str(row.batch_size) if row.batch_size is not None else "",
        f"{row.images_seen / train_images:.3g}" if row.images_seen else "",
    ]
