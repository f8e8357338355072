"""The command that reproduces what sources claim. Parse, call, print – nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    CheckpointsOption,
    DatasetOption,
    DeviceOption,
    MlflowOption,
    StorageOption,
    SwitchesOption,
    TrainImagesOption,
    WorkersOption,
    console_on,
    print_line,
    print_table,
    settings_from,
)


def reproduce_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: bnvit-study reproduce article --only speed")(reproduce)


def reproduce(
    source: Annotated[
        str, typer.Argument(metavar="article|blog|tiny-imagenet", help="Whose claims.")
    ],
    only: Annotated[
        str | None,
        typer.Option(metavar="PART,…", help="Of the article speed, denormals, experiment1 …"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also parts that are run on request: dropout.")
    ] = False,
    epochs: Annotated[int, typer.Option(help="Of sweeps and fits.")] = 30,
    seeds: Annotated[int, typer.Option(help="Runs of each configuration.")] = 3,
    trials: Annotated[int, typer.Option(help="Of each search.")] = 20,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="LR,…",
            help="Of experiment 1. Default: all of the article's.",
            show_default=False,
        ),
    ] = None,
    train_images: TrainImagesOption = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="For one race at most.")] = 2.0,
    denormal_epochs: Annotated[
        float, typer.Option(help="Trained before denormals are looked for.")
    ] = 1.0,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Of the blog's inference. Default: 256, on a CPU 8.", show_default=False),
    ] = None,
    dataset: DatasetOption = "mnist",
    switches: SwitchesOption = None,
    study: Annotated[
        str | None,
        typer.Option(help="What names of studies begin with. Default: reproduce-SOURCE."),
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a report to this file, too.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="Of the file: html, md, json or csv.")
    ] = "html",
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Every claim of a source with ours beside it: confirmed, refuted, undecided or not run.

    Runs what is missing of the chosen parts, and reports all that is there.
    """
    from study import data_dir
    from study.article_claims import LRS
    from study.experiment_requests import parse_rates
    from study.model_options import switches_of
    from study.report_files import check_output, write_report
    from study.reproduction import Reproduction, parse_parts, parse_source
    from study.reproduction_evidence import evidence_of, run_missing
    from study.reproduction_races import Races, check_loop
    from study.reproduction_report import reproduction_report
    from study.reproduction_runs import Runs
    from study.request import parse_workers

    known = parse_source(source)
    asked = Reproduction(
        source=known,
        parts=parse_parts(known, only, everything),
        epochs=epochs,
        seeds=seeds,
        trials=trials,
        lrs=LRS if lr is None else tuple(sorted(set(parse_rates(lr)))),
        train_images=train_images,
        minutes=minutes,
        batch_size=batch_size,
        denormal_epochs=denormal_epochs,
        dataset=dataset,
        switches=switches_of("vit", switches),
        device=device,
        study=study,
        storage=storage,
        mlflow=mlflow,
    )
    asked.check()
    check_loop(asked)
    path = None if output is None else check_output(output, format_)
    settings = settings_from(storage, mlflow, checkpoints)
    console, notes = console_on(), console_on(stderr=True)
    runs = Runs(asked, settings, notes, parse_workers(workers), checkpoints)
    runs.check(asked.parts)
    data_dir.prepare(settings.data_dir)
    races = Races(asked, settings, lambda line: print_line(notes, line))
    try:
        code = run_missing(asked, races, runs)
    except KeyboardInterrupt:  # of which Typer would make an exit without a word
        raise typer.Abort from None
    found = reproduction_report(asked, evidence_of(asked, races, runs))
    for verdict in found.verdicts:
        print_line(console, verdict)
    for table in found.tables:
        print_table(console, table)
    for line in [] if path is None else write_report(found, format_, path):
        print_line(notes, f"written: {line}")
    raise typer.Exit(code)
