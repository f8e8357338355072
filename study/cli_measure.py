"""The command that measures speed. Parse, call, print – nothing else."""

import json
from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    DatasetOption,
    DeviceOption,
    ImageSizeOption,
    JsonOption,
    PrecisionOption,
    SwitchesOption,
    console_on,
    print_line,
    print_table,
    settings_from,
)


def measure_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: bnvit-study measure vit vitbnffn vitbn --batch-size 20,100")(
        measure
    )


def measure(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="The first is what the others are compared with."),
    ],
    batch_size: Annotated[str, typer.Option(metavar="N,…", help="Batch sizes.")] = "100",
    work: Annotated[str, typer.Option(help="train, eval or both.")] = "both",
    dataset: DatasetOption = "mnist",
    image_size: ImageSizeOption = None,
    switches: SwitchesOption = None,
    precision: PrecisionOption = "float32",
    plain: Annotated[
        bool, typer.Option("--plain", help="As the models are written: no merged attention.")
    ] = False,
    within: Annotated[
        float, typer.Option(metavar="SHARE", help="Repeat until the ratios are known so well.")
    ] = 0.01,
    minutes: Annotated[float, typer.Option(min=0.01, help="For one task at most.")] = 2.0,
    threads: Annotated[int | None, typer.Option(help="Of the CPU. Default: all.")] = None,
    device: DeviceOption = "auto",
    allow_unequal: Annotated[
        bool,
        typer.Option("--allow-unequal", help="Also where depth or multiply-adds differ."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep it as JSON in this file, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure training and evaluation speed of models against each other, with intervals."""
    from study import data_dir
    from study.experiment_requests import parse_sizes
    from study.model_options import switches_of
    from study.report_files import check_file
    from study.speed_tables import headline, task_table
    from study.speeds import MeasureRequest, parse_works
    from study.speeds import measure as measured

    request = MeasureRequest(
        models=tuple(models),
        switches=switches_of(models[0], switches),
        dataset=dataset,
        image_size=image_size,
        batch_sizes=tuple(parse_sizes(batch_size)),
        works=parse_works(work),
        precision=precision,  # type: ignore[arg-type]  # checked by MeasureRequest.check
        plain=plain,
        half_width=within,
        limit_s=60 * minutes,
        device=device,
        threads=threads,
        allow_unequal=allow_unequal,
    )
    if output is not None:
        check_file(output)
    settings = settings_from()
    data_dir.prepare(settings.data_dir)
    notes = console_on(stderr=True)
    found = measured(request, settings, lambda line: print_line(notes, f"measuring: {line}"))
    told = json.dumps(found.as_dict(), indent=2)
    if output is not None:
        output.write_text(told + "\n")
    if as_json:
        print(told)
        return
    console = console_on()
    for line in headline(found):
        print_line(console, line)
    for task in found.tasks:
        print_table(console, task_table(found, task))
