"""The command that averages models. Parse, call, print, no more."""

import json
from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    DeviceOption,
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    StorageOption,
    console_on,
    print_line,
    print_table,
    settings_from,
)


def soup_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: bnvit-study soup mnist-vitbn --greedy")(soup)


def soup(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY|RUN|FILE…",
            help="A study (all trials that kept their weights), or several runs of MLflow or files "
            "of weights; of several studies the best of each.",
        ),
    ],
    greedy: Annotated[
        bool,
        typer.Option("--greedy", help="Only members that make it strictly better on validation."),
    ] = False,
    any_initialisation: Annotated[
        bool,
        typer.Option(
            "--any-initialisation",
            help="Also members that did not begin with the same weights, or may not have: their "
            "average is at chance as a rule.",
        ),
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="As for run. Default: what the members were trained on.", show_default=False
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = "auto",
    test: Annotated[
        bool,
        typer.Option("--test", help="Read the test images, once: the soup and its best member."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.safetensors",
            help="Default: STUDY-soup.safetensors, of several members soup.safetensors.",
            show_default=False,
        ),
    ] = None,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Average trained models into one: all, or greedily; statistics are estimated anew."""
    from study.soup import Asked, make_soup
    from study.soup_words import members_table, opening_lines, result_lines

    asked = Asked(
        tuple(targets), greedy, any_initialisation, dataset, image_size, device, test, output
    )
    made = make_soup(asked, settings_from(storage, mlflow))
    if as_json:
        print(json.dumps(made.as_dict(), indent=2))
        return
    console = console_on()
    for line in opening_lines(made):
        print_line(console, line)
    print_table(console, members_table(made))
    print()
    for line in result_lines(made):
        print_line(console, line)
