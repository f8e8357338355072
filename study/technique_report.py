"""An experiment on techniques as a report: a figure, a table, and each line against the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from study.charts import Chart, Line, Panel
from study.comparison import Cell, cells
from study.comparison_charts import BAND
from study.comparison_tables import accuracy_words, points
from study.report import Report, Section
from study.report_methods import environment, how_judged
from study.results import StudyResult
from study.statistics import compared
from study.tabular import Tabular
from study.technique import Arm, Technique
from study.words import counted

NOT_TUNED = (
    "All runs have the same learning rate, given beforehand: no line is at its own best, and a "
    "search of each may order them otherwise."
)


@dataclass(frozen=True)
class Point:
    """What the runs of an arm gave."""

    arm: Arm
    result: StudyResult

    @property
    def cell(self) -> Cell:
        """Its one configuration."""
        return cells([self.result])[0]


def technique_report(asked: Technique, found: Sequence[Point], command: str) -> Report:
    """The report on an experiment whose runs have ended."""
    results = [point.result for point in found]
    identity = results[0].identity
    return Report(
        title=f"{asked.name.capitalize()}: {identity.model} on {identity.dataset}",
        question=asked.question,
        verdicts=tuple(_verdicts(found)),
        sections=(
            Section("Accuracy", (_chart(asked, found), _table(asked, found))),
            Section("Methods", (NOT_TUNED, *how_judged(identity), f"Command: {command}")),
            environment(results),
        ),
    )


def _verdicts(found: Sequence[Point]) -> Iterator[str]:
    """Each line against the first at the same point; where none is shared, at its only one."""
    first = [point for point in found if point.arm.line == found[0].arm.line]
    pairs = [
        (point, reference)
        for point in found
        if point.arm.line != found[0].arm.line
        for reference in first
        if point.arm.x == reference.arm.x or len(first) == 1
    ]
    for point, reference in pairs:
        mine, its = point.cell.accuracies, reference.cell.accuracies
        seeds = sorted(mine.keys() & its.keys())
        subject = f"{point.arm.line} against {reference.arm.line} at {point.arm.x:g}"
        if len(seeds) < 2:
            yield f"{subject}: fewer than two seeds in common, nothing to compare"
            continue
        difference = compared([mine[s] for s in seeds], [its[s] for s in seeds], len(pairs))
        yield (
            f"{subject}: {difference.verdict('more accurate', 'less accurate')}; difference "
            f"{points(difference.difference)} points (95 %), {counted(len(seeds), 'seed')}"
        )


def _chart(asked: Technique, found: Sequence[Point]) -> Chart:
    names = list(dict.fromkeys(point.arm.line for point in found))
    lines = tuple(_line(name, [p for p in found if p.arm.line == name]) for name in names)
    panel = Panel("", asked.x_title, "test accuracy", lines, log_x=asked.log_x, percent_y=True)
    return Chart(
        name=asked.name,
        title=asked.question,
        panels=(panel,),
        columns=1,
        caption=BAND,
    )


def _line(name: str, own: Sequence[Point]) -> Line:
    known = sorted((p for p in own if p.cell.accuracies), key=lambda point: point.arm.x)
    values = [list(point.cell.accuracies.values()) for point in known]
    return Line(
        name,
        tuple(point.arm.x for point in known),
        tuple(fmean(each) for each in values),
        tuple(min(each) for each in values),
        tuple(max(each) for each in values),
    )


def _table(asked: Technique, found: Sequence[Point]) -> Tabular:
    return Tabular(
        asked.name,
        "Test accuracy, read once at the end of each run",
        (
            "line",
            "what trains",
            asked.x_title,
            "seeds",
            "test accuracy (95 %)",
            "range",
            "diverged",
            "trained parameters",
            "GMACs × epochs",
        ),
        tuple(tuple(_row(point)) for point in found),
        left=2,
    )


def _row(point: Point) -> Iterator[str]:
    cell, identity = point.cell, point.result.identity
    accuracies = list(cell.accuracies.values())
    known = next((run.computed for run in point.result.runs if run.computed), {})
    yield point.arm.line
    yield "linear probe" if identity.recipe.train == "head" else "all"
    yield f"{point.arm.x:g}"
    yield str(len(cell.runs))
    yield accuracy_words(cell)
    yield f"{min(accuracies):.2%}–{max(accuracies):.2%}" if accuracies else ""
    yield f"{cell.diverged} of {len(cell.runs)}"
    yield f"{known['trained_parameters']:,}" if "trained_parameters" in known else ""
    yield f"{known.get('multiply_adds', 0) * identity.epochs / 1e9:.4g}"
