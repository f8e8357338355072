"""The commands about models and data: list, show, fetch, export. Parse, call, print, no more."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli_inspect import inspect
from study.cli_options import (
    DatasetOption,
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    SkipBrokenOption,
    StorageOption,
    SwitchesOption,
    console_on,
    print_line,
    print_view,
    settings_from,
)

if TYPE_CHECKING:
    from models.switches import ImageShape


def model_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (models, "models deit_tiny_bn --dataset cifar10"),
        (export, "export mnist-vitbn --fold --format onnx"),
        (inspect, "inspect mnist-vitbn --against mnist-vit -o figures"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)
    data = typer.Typer(help="Fetch data sets.")
    data.command(epilog="Example: bnvit-study data fetch mnist")(fetch)
    app.add_typer(data, name="data")


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one in all its parts.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="With every normalisation.")] = False,
    dataset: DatasetOption = "mnist",
    image_size: ImageSizeOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Of the memory that is told for a NAME.")
    ] = 100,
    switches: SwitchesOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, or show one: norms, size, what executes, what folds."""
    from models.errors import InputError
    from objectives.data_options import DataOptions
    from study import model_tables
    from study.model_options import switches_of

    if name is None and switches:
        raise InputError("--set is about one model; give its NAME")
    image = model_tables.image_shape(dataset, DataOptions(image_size), settings_from())
    if name is None:
        _list_models(image, every, as_json)
        return
    view = model_tables.model_view(name, image, switches_of(name, switches), batch_size)
    if as_json:
        print(json.dumps(asdict(view), indent=2))
        return
    for line in model_tables.view_lines(view):
        print_line(console_on(), line)
    print()
    print_view(console_on(), model_tables.norms_table(view))


def _list_models(image: "ImageShape", every: bool, as_json: bool) -> None:
    from study import model_tables

    rows = model_tables.variant_rows(image) if every else model_tables.model_rows(image)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = model_tables.variants_table if every else model_tables.models_table
    print_view(console_on(), table(rows))  # type: ignore[arg-type]  # rows and table belong together
    print(f"\nA backbone takes {model_tables.GRAMMAR};")
    print("timm:NAME is any vision transformer of timm; 'bnvit-study models NAME' shows one.")


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|RUN|FILE",
            help="A study (its trials, or its best model), an MLflow run, or a file of weights.",
        ),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="Of trials: csv, parquet, json. Of a model: safetensors, onnx."
        ),
    ] = "csv",
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold norms into their neighbours, for inference.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: standard output; for binary formats a file."),
    ] = None,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Write a study's trials as a table, or a trained model as a file that was verified."""
    from models.errors import InputError
    from study.export import FORMATS, export_trials
    from study.model_export import MODEL_FORMATS, export_model
    from study.storage import open_store
    from study.studies import show_study

    settings = settings_from(storage, mlflow)
    if format_ in MODEL_FORMATS:
        for line in export_model(target, format_, fold, output, settings):
            print_line(console_on(), line)
        return
    if format_ not in FORMATS:
        known = ", ".join((*FORMATS, *MODEL_FORMATS))
        raise InputError(f"unknown format '{format_}'; write one of {known}")
    if fold:
        raise InputError(f"--fold is about models; add --format {' or '.join(MODEL_FORMATS)}")
    with open_store(settings) as store:
        written = export_trials(show_study(store, target), format_, output)
    if written is not None:
        print_line(console_on(stderr=True), f"written: {written}")


def fetch(
    name: Annotated[str, typer.Argument(help="Data set, as for run --dataset.")],
    image_size: ImageSizeOption = None,
    skip_broken: SkipBrokenOption = False,
) -> None:
    """Fetch a data set into the data folder, unless it is there, and read it once."""
    from objectives.data import load_search_data
    from objectives.data_options import DataOptions
    from objectives.datasets import dataset
    from study import data_dir

    settings = settings_from()
    source = dataset(name, settings.data_dir, DataOptions(image_size, skip_broken))
    data_dir.prepare(settings.data_dir)
    folder = source.fetch()
    data = load_search_data(source)
    shape = data.shape
    print_line(
        console_on(),
        f"{name} is in {folder}: {len(data.train):,} training and {len(data.validation):,} "
        f"validation images, {shape.channels}×{shape.size}×{shape.size}, {shape.classes} classes",
    )
