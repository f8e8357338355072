"""The commands that compare and report. Parse, call, print – nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli_options import (
    DatasetOption,
    JsonOption,
    MlflowOption,
    StorageOption,
    console_on,
    print_line,
    print_table,
    settings_from,
)

if TYPE_CHECKING:
    from study.comparison_report import Asked
    from study.storage import Store

_StudiesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STUDY…]", help="The first is what the others are compared with."),
]
_ModelsOption = Annotated[
    str | None,
    typer.Option(
        "--models", metavar="NAME,…", help="Instead: their fits on --dataset, else their searches."
    ),
]
_TargetOption = Annotated[
    float, typer.Option("--target", help="Validation accuracy that counts as converged.")
]
_UnequalOption = Annotated[
    bool,
    typer.Option("--allow-unequal", help="Compare what differs, too; every table says in what."),
]
_SpeedsOption = Annotated[
    Path | None, typer.Option("--speeds", metavar="FILE", help="Speeds that measure -o kept.")
]


def report_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (compare, "compare --models vit,vitbnffn,vitbn"),
        (report, "report mnist-vit-fit mnist-vitbn-fit -o report.html"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def compare(
    studies: _StudiesArgument = None,
    models: _ModelsOption = None,
    dataset: DatasetOption = "mnist",
    target: _TargetOption = 0.97,
    allow_unequal: _UnequalOption = False,
    speeds: _SpeedsOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare variants: each at its own best, or at equal values; with intervals and a verdict."""
    from study.comparison_report import read_compared, report_of
    from study.report_text import json_text
    from study.storage import open_store

    with open_store(settings_from(storage)) as store:
        asked = _asked(store, studies, models, dataset, target, allow_unequal, speeds)
        found = report_of(read_compared(store, asked))
    if as_json:
        print(json_text(found), end="")
        return
    console = console_on()
    print_line(console, found.title)
    for verdict in found.verdicts:
        print_line(console, f"  {verdict}")
    for table in found.tables:
        print_table(console, table)


def report(
    studies: _StudiesArgument = None,
    models: _ModelsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: standard output, but for html report.html."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="html, md (with a PNG per figure), json or csv.")
    ] = "html",
    dataset: DatasetOption = "mnist",
    layout: Annotated[
        str,
        typer.Option(help="comparison, or blog: that blog's table and matrix of the models."),
    ] = "comparison",
    outside: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="For blog: results from elsewhere, as COCO AP, by a column 'model'."
        ),
    ] = None,
    target: _TargetOption = 0.97,
    allow_unequal: _UnequalOption = False,
    speeds: _SpeedsOption = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish/--no-publish",
            help="Keep it with the studies, too: in MLflow's parent runs and Optuna Dashboard.",
        ),
    ] = True,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Write a report on studies: one file that opens offline, the verdict first."""
    from study.report_files import check_layout, check_output, publish_report, write_report
    from study.report_layouts import laid_out
    from study.storage import open_store

    settings = settings_from(storage, mlflow)
    path = check_output(output, format_)
    check_layout(layout, outside)
    with open_store(settings) as store:
        asked = _asked(store, studies, models, dataset, target, allow_unequal, speeds)
        found = laid_out(store, settings, asked, layout, outside)
        written = write_report(found, format_, path)
        notes = console_on(stderr=True)
        for line in written:
            print_line(notes, f"written: {line}")
        if publish:
            for line in publish_report(found, store, settings, asked.studies):
                print_line(notes, line)


def _asked(
    store: "Store",
    studies: list[str] | None,
    models: str | None,
    dataset: str,
    target: float,
    allow_unequal: bool,
    speeds: Path | None,
) -> "Asked":
    from study.comparison_report import Asked
    from study.comparison_requests import check_target, named_studies
    from study.speeds_file import read_speeds

    names = named_studies(store, studies or [], models, dataset)
    told = None if speeds is None else read_speeds(speeds)
    return Asked(names, check_target(target), allow_unequal, told)
