"""The commands about recipes: what they are, and experiments on them. Parse, call, print."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    CheckpointsOption,
    ConfigOption,
    ConvertOption,
    DatasetOption,
    DeviceOption,
    FieldsOption,
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    NewHeadOption,
    RecipeOption,
    StorageOption,
    TeacherOption,
    TrainImagesOption,
    WeightsOption,
    WorkersOption,
    console_on,
    print_line,
    print_table,
    print_view,
    settings_from,
)


def recipe_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (recipes, "recipes deit"),
        (experiment, "experiment regularisation --model vitbn --lr 0.0005"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show all fields of this one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes, or show one: every field that --set and --search can name."""
    from objectives.recipes import PRESETS, preset
    from study.recipe_tables import fields_table, recipes_table

    if as_json:
        chosen = PRESETS if name is None else {name: preset(name)}
        print(json.dumps({key: asdict(one) for key, one in chosen.items()}, indent=2))
        return
    if name is None:
        print_view(console_on(), recipes_table())
        print("\n'bnvit-study recipes NAME' shows every field; docs/recipes.md explains them.")
        return
    chosen_one = preset(name)
    print_line(console_on(), f"{name}: {chosen_one.source}")
    print_view(console_on(), fields_table(chosen_one))


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="regularisation|transfer|patches|batches",
            help="Augmentation against regularisation, trained weights against none, small against "
            "large patches at equal compute, or batch sizes.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Model; see 'bnvit-study models --all'.")],
    lr: Annotated[float, typer.Option(help="Learning rate of all runs.")],
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size of all runs. Default: the recipe's, else 100.")
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,…", help="Of the experiment 'batches'.")
    ] = "32,64,128",
    fractions: Annotated[
        str, typer.Option(metavar="SHARE,…", help="Of the training images.")
    ] = "0.1,0.3,1",
    levels: Annotated[
        str, typer.Option(metavar="LEVEL,…", help="Of augmentation: none, light1 … strong2.")
    ] = "none,light1,strong1",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each run. Default: the recipe's, else 30.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each point.")] = 3,
    dataset: DatasetOption = "mnist",
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    teacher: TeacherOption = None,
    train_images: TrainImagesOption = None,
    image_size: ImageSizeOption = None,
    weights: WeightsOption = None,
    convert: ConvertOption = False,
    new_head: NewHeadOption = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    study: Annotated[
        str | None, typer.Option(help="What names of studies begin with. Default: NAME-MODEL.")
    ] = None,
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
    """Train all runs that answer a question about training, and report: figure, table, verdicts.

    Runs that are there already are not trained again.
    """
    from study.experiment_requests import parse_names, parse_rates, parse_sizes
    from study.plan import PLANNED_EPOCHS
    from study.recipe_options import training_of
    from study.report_files import check_output, write_report
    from study.request import Request, parse_workers
    from study.technique import TechniqueOptions, technique
    from study.technique_report import technique_report
    from study.technique_runs import technique_runs

    asked = technique(name)
    training = training_of(model, recipe, config, fields, teacher)
    path = None if output is None else check_output(output, format_)
    settings = settings_from(storage, mlflow, checkpoints)
    base = Request(
        model=model,
        switches=training.switches,
        recipe=training.recipe,
        dataset=dataset,
        epochs=training.epochs(epochs, PLANNED_EPOCHS),
        seed=1,
        train_images=train_images,
        image_size=training.image_size(image_size),
        weights=weights,
        convert=convert,
        new_head=new_head,
        device=device,
        workers=parse_workers(workers),
        study=study or f"{name}-{model.replace(':', '-')}",
        storage=storage,
        mlflow=mlflow,
        checkpoints=checkpoints,
    )
    options = TechniqueOptions(
        lr,
        batch_size or training.preset.batch_size or 100,
        seeds,
        parse_rates(fractions, "fractions"),
        tuple(parse_names(levels)),
        tuple(parse_sizes(batch_sizes, "batch-sizes")),
    )
    runs = technique_runs(asked, base, options, settings)
    console, notes = console_on(), console_on(stderr=True)
    try:
        code = runs.train(notes)
    except KeyboardInterrupt:  # of which Typer would make an exit without a word
        raise typer.Abort from None
    if code:
        raise typer.Exit(code)
    command = shlex.join(["bnvit-study", *sys.argv[1:]])
    found = technique_report(asked, runs.points(), command)
    for verdict in found.verdicts:
        print_line(console, verdict)
    print_table(console, found.tables[0])
    for line in [] if path is None else write_report(found, format_, path):
        print_line(notes, f"written: {line}")
