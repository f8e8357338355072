"""The command that looks into models. Parse, call, print, no more."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli_options import (
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    StorageOption,
    console_on,
    print_line,
    print_view,
    settings_from,
)

if TYPE_CHECKING:
    from rich.console import Console

    from study.inspection import Inspected


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|RUN|FILE|MODEL",
            help="A study (its best), an MLflow run, a file of weights, or a model of random ones.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="STUDY|RUN|FILE|MODEL", help="Another, to be shown beside it."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="As for run. Default: what the model was trained on.", show_default=False
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", help="Validation images to look at. Default: 256.", min=1),
    ] = None,
    inject: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Multiply the channel of the largest extreme by this before the first block.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights of a MODEL.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write charts and numbers there."),
    ] = None,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look into a model, or two side by side: norms, channels, attention, branches, by depth."""
    from study.inspection import Asked, inspected, keep

    asked = Asked(target, against, dataset, image_size, images, inject, seed)
    with inspected(asked, settings_from(storage, mlflow)) as done:
        if as_json:
            print(json.dumps(done.as_dict(), indent=2))
        else:
            _show(done, console_on())
        notes = console_on(stderr=as_json)
        for line in keep(done, output):
            print_line(notes, line)


def _show(done: "Inspected", console: "Console") -> None:
    from study.inspect_tables import blocks_table, norms_table

    for one, found in done.subjects:
        seen = ", which it was trained on, too" if one.saw_validation else ""
        print_line(console, f"model:   {one.name}, {one.source}")
        print_line(
            console,
            f"images:  {found.images} of the validation images of {done.images.dataset}{seen}; "
            f"accuracy {found.accuracy:.2%}",
        )
        for path in found.folded[:1]:
            print_line(
                console, f"folded:  {len(found.folded)} norms, as {path}: nothing to see there"
            )
        print()
        for table in (norms_table(found), blocks_table(found)):
            if table.row_count:
                print_view(console, table)
                print()
    for line in done.observations:
        print_line(console, line)
