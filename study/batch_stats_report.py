"""What `batch-stats` found, as a report and as files."""

import json
from collections.abc import Iterator
from pathlib import Path

from models.errors import InputError
from study.batch_stats_charts import batch_stats_charts
from study.batch_stats_findings import findings
from study.batch_stats_runs import BatchStats
from study.batch_stats_tables import batch_stats_tables
from study.recipe_options import training_words
from study.report import Block, Report, Section
from study.report_files import write_report
from study.words import counted

REPORT_FILE = "README.md"
JSON_FILE = "batch-stats.json"
_TITLES = {
    "Three ways to judge, over NBS": ("three-ways", "sweep"),
    "FrozenBN beside running averages and mini-batches": ("frozen",),
    "Leakage within a batch": ("leakage",),
    "Running averages against PreciseBN through training": ("estimates",),
}


def check_folder(folder: Path | None) -> None:
    """Raise InputError where the folder is something else; it is made at the end."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder; name another with -o")


def batch_stats_report(found: BatchStats, command: str) -> Report:
    """The whole report; `command` made it."""
    blocks: list[Block] = [*batch_stats_charts(found), *batch_stats_tables(found)]
    sections = [
        Section(title, tuple(b for b in blocks if not isinstance(b, str) and b.name in names))
        for title, names in _TITLES.items()
    ]
    return Report(
        f"Batch statistics of {found.request.model} on {found.request.dataset}",
        "Do the findings of Wu & Johnson (Rethinking 'Batch' in BatchNorm, arXiv 2105.07576) hold "
        "here? A normalisation batch (NBS) is the images over whose tokens BatchNorm takes its "
        "statistics, of an SGD batch that stays as it is.",
        tuple(findings(found)),
        (
            *(section for section in sections if section.blocks),
            Section("How it was run", tuple(_methods(found, command))),
        ),
    )


def write(found: BatchStats, command: str, folder: Path) -> list[str]:
    """Write report, figures and JSON into `folder`; returns the files. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = write_report(batch_stats_report(found, command), "md", folder / REPORT_FILE)
        numbers = folder / JSON_FILE
        told = {"command": command, **found.as_dict(), "findings": findings(found)}
        numbers.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error})") from error
    return [*files, str(numbers)]


def _methods(found: BatchStats, command: str) -> Iterator[str]:
    request = found.request
    packages = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    words = " ".join(training_words(request.recipe, request.switches)) or "nothing set"
    yield f"    {command}"
    yield (
        f"{found.train_images:,} training and {found.validation_images:,} validation images of "
        f"{request.dataset} (checksum {found.checksum}), {counted(request.epochs, 'epoch')}, "
        f"lr {request.lr:g}, recipe {request.recipe.name} ({words}), seeds "
        f"{', '.join(map(str, request.all_seeds))}; {'; '.join(request.notes())}."
    )
    yield (
        "Population statistics are exact (PreciseBN), layer by layer; mini-batch statistics are of "
        "NBS images, the last group filled up with images that do not count again. Runs of one "
        "seed begin with the same weights and see the same images in the same order."
    )
    yield (
        f"{found.device}, {counted(found.threads, 'thread')}, {found.seconds / 60:.1f} minutes, "
        f"revision {found.revision}; {packages}."
    )
