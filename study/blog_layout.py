"""The DeiT-BN blog's tables, filled with our studies: a row per model, and a matrix of variants."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from models.errors import InputError
from models.grammar import ModelName
from models.registry import Sizes, variant
from objectives.metrics import Diverged
from objectives.notation import run_notation
from study.charts import Boxes, Chart, Panel
from study.comparison import Cell, best_cells, cells
from study.comparison_tables import unequal_notes
from study.equality import unlike_conditions
from study.report import Report, Section
from study.report_methods import environment, how_judged
from study.results import RunResult, StudyResult, told_apart
from study.speed_tables import speed_chart
from study.speeds import Speeds
from study.tabular import Tabular

COMBINATIONS = ("", "bn_relu6", "bn_wn", "bn_wn_relu6", "lnbn_wn", "lnbn_wn_relu6")
"""What the blog puts beside each other; the first is the backbone as published."""

_CHOSEN = (
    "Of several learning rates and batch sizes a model stands with the best, chosen on the "
    "validation split; accuracies are means over its seeds."
)


@dataclass(frozen=True)
class Outside:
    """Results from elsewhere, by model: a column each, as COCO AP or ADE20k mIoU."""

    headings: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]  # by model


@dataclass(frozen=True)
class Entry:
    """A model of ours, as the blog lists it."""

    name: ModelName
    label: str  # its name, with the study's where several have the same
    sizes: Sizes
    cell: Cell  # its best configuration, chosen on the validation split
    train_images: int

    @property
    def top1(self) -> str:
        """Mean accuracy in per cent; of a model that diverged how far it came: 80.7 @ 234, NaN."""
        lost = [run for run in self.cell.runs if run.diverged is not None]
        if lost:
            among = f" ({len(lost)} of {len(self.cell.runs)})" if len(self.cell.runs) > 1 else ""
            return _notation(lost[0], self.train_images) + among
        accuracies = list(self.cell.accuracies.values())
        return run_notation(fmean(accuracies), None, 1) if accuracies else ""


def read_outside(path: Path) -> Outside:
    """Results in a CSV file whose first column is `model`; raises InputError where it has none."""
    try:
        with path.open(newline="") as file:
            first, *rest = list(csv.reader(file))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is no table with a column 'model'") from error
    if not first or first[0] != "model" or any(len(row) != len(first) for row in rest):
        raise InputError(f"{path}: the first column must be 'model', and all rows equally long")
    return Outside(tuple(first[1:]), {row[0]: tuple(row[1:]) for row in rest})


def blog_report(
    results: Sequence[StudyResult],
    speeds: Speeds | None,
    outside: Outside | None,
    links: Sequence[tuple[str, str]] = (),
) -> Report:
    """The blog's tables of these studies; they may differ in size, as those of the blog do."""
    found = tuple(_entries(results))
    unequal = unequal_notes(unlike_conditions(results))
    charts = tuple(_charts(found, speeds))
    return Report(
        title=f"{len(found)} models in the layout of the DeiT-BN blog",
        question=f"Accuracy on the test images of {results[0].identity.dataset}, mean over seeds.",
        verdicts=("models of different sizes are listed, not compared: no verdict", *unequal),
        sections=(
            Section("Models", (models_table(found, speeds, outside, unequal),)),
            Section("Variants of each backbone", (matrix_table(found, unequal),)),
            *([Section("Figures", charts)] if charts else []),
            Section("Methods", (*how_judged(results[0].identity), _CHOSEN)),
            environment(results),
        ),
        links=tuple(links),
    )


def models_table(
    entries: Sequence[Entry],
    speeds: Speeds | None,
    outside: Outside | None,
    unequal: Sequence[str] = (),
) -> Tabular:
    """A row per model: accuracy, size and speed, and what is known from elsewhere."""
    known = outside or Outside((), {})
    unused = sorted(known.rows.keys() - {str(entry.name) for entry in entries})
    notes = [
        "NaN: a run stopped being finite; before it the best validation accuracy in per cent @ "
        "epoch, of the first run that did; the others are test accuracies."
    ]
    if unused:
        notes.append(f"Without a study here: {', '.join(unused)}.")
    if speeds is not None:
        notes.append(
            f"img/s: evaluation of {speeds.dataset}, measured on {speeds.device}, "
            f"{speeds.precision}."
        )
    return Tabular(
        name="blog-models",
        title="Models",
        headings=(
            *("model", "top-1 %", "params M", "img/s", "GMACs"),
            *("dim", "heads", "depth", "lr", "batch size", *known.headings),
        ),
        rows=tuple((*_row(entry, speeds), *_outside(entry, known)) for entry in entries),
        notes=(*notes, *unequal),
    )


def matrix_table(entries: Sequence[Entry], unequal: Sequence[str] = ()) -> Tabular:
    """Backbones against what is done to them: top-1 in per cent."""
    by_name: dict[str, str] = {}
    for entry in entries:  # one with several studies, as at two batch sizes, has several results
        before = by_name.get(str(entry.name))
        by_name[str(entry.name)] = f"{before}; {entry.top1}" if before else entry.top1
    backbones = dict.fromkeys(entry.name.backbone for entry in entries)
    return Tabular(
        name="blog-matrix",
        title="Top-1 in per cent by backbone and variant",
        headings=("backbone", "LN", *COMBINATIONS[1:]),
        rows=tuple(
            (name, *(by_name.get("_".join(filter(None, (name, c))), "–") for c in COMBINATIONS))
            for name in backbones
        ),
        notes=("–: no study.", *unequal),
    )


def _charts(entries: Sequence[Entry], speeds: Speeds | None) -> Iterator[Chart]:
    """The accuracies, and how fast the models are."""
    judged = [entry for entry in entries if entry.cell.accuracies]
    if judged:
        yield _accuracy_chart(judged)
    if speeds is not None and speeds.tasks and len(speeds.tasks[0].race.timings) > 1:
        yield speed_chart(speeds)


def _accuracy_chart(entries: Sequence[Entry]) -> Chart:
    boxes = Boxes(
        "test accuracy of each seed",
        tuple(entry.label for entry in entries),
        tuple(tuple(entry.cell.accuracies.values()) for entry in entries),
    )
    return Chart(
        name="top1",
        title="Top-1 on the test images",
        panels=(Panel("", "", "test accuracy", (boxes,), percent_y=True),),
        caption="The quartiles over the seeds. A run that diverged counts with the accuracy of "
        "guessing.",
    )


def _entries(results: Sequence[StudyResult]) -> Iterator[Entry]:
    named = told_apart(results)
    for cell, result in zip(best_cells(cells(named)), named, strict=True):
        identity = result.identity
        chosen = variant(identity.model)
        sizes = chosen.sizes(identity.model_switches)
        yield Entry(chosen.parts, result.model, sizes, cell, identity.train_images)


def _row(entry: Entry, speeds: Speeds | None) -> Iterator[str]:
    computed = next((run.computed for run in entry.cell.runs if run.computed), {})
    yield str(entry.name)
    yield entry.top1
    yield f"{computed['parameters'] / 1e6:.1f}" if computed else ""
    yield _images_per_s(entry, speeds)
    yield f"{computed['multiply_adds'] / 1e9:.4g}" if computed else ""
    yield from (entry.sizes.dim, entry.sizes.heads, entry.sizes.depth)
    yield from (f"{entry.cell.lr:.3g}", str(entry.cell.batch_size))


def _images_per_s(entry: Entry, speeds: Speeds | None) -> str:
    """At evaluation, with the largest batch that was measured; folded, where that was."""
    tasks = [task for task in speeds.tasks if task.work == "eval"] if speeds else []
    if not tasks:
        return ""
    largest = max(tasks, key=lambda task: task.batch_size)
    speed = {timing.name: timing.images_per_s for timing in largest.race.timings}
    plain, folded = (speed.get(f"{entry.name}{form}") for form in ("", ", folded"))
    if plain is None:
        return ""
    return f"{plain:,.0f}" + ("" if folded is None else f" ({folded:,.0f} folded)")


def _outside(entry: Entry, known: Outside) -> tuple[str, ...]:
    return known.rows.get(str(entry.name), ("",) * len(known.headings))


def _notation(run: RunResult, train_images: int) -> str:
    assert run.diverged is not None
    return run_notation(None, Diverged(**run.diverged), train_images)
