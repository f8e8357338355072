"""The commands about BatchNorm's statistics. Parse, call, print, no more."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    ConfigOption,
    DatasetOption,
    DeviceOption,
    FieldsOption,
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    RecipeOption,
    StorageOption,
    TrainImagesOption,
    console_on,
    print_line,
    print_table,
    settings_from,
)


def batch_stats_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (recalibrate, "recalibrate mnist-vitbn --method exact --images 10000"),
        (batch_stats, "batch-stats --model vitbn --nbs 2,4,…,1024 --sgd-batch 1024 -o figures"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def recalibrate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|RUN|FILE",
            help="A study (its best), an MLflow run, or a file of weights.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="Whose statistics are written: exact (layer by layer, a pass over the images for "
            "each norm) or one-pass (mini-batch moments pooled in one pass)."
        ),
    ] = "exact",
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Training images to estimate on. Default: 2,000, fewer above 64 pixels.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Images in a batch, also of mini-batch statistics.")
    ] = 250,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="As for run. Default: what the model was trained on.", show_default=False
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    domains: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET,…",
            help="Other data sets of the same classes: statistics of each are evaluated on each.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: TARGET-recalibrated.safetensors."),
    ] = None,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Estimate a trained model's BatchNorm statistics anew, and write it with them.

    Prints the accuracy on validation images before and after, by both methods and by mini-batches.
    """
    from study.recalibration import Asked, recalibrated_file

    asked = Asked(
        target,
        method,
        images,
        batch_size,
        dataset,
        image_size,
        tuple(domains.split(",")) if domains else (),
        output,
    )
    done = recalibrated_file(asked, settings_from(storage, mlflow))
    console = console_on()
    for line in done.lines:
        print_line(console, line)
    for table in done.tables:
        print_table(console, table)
    print_line(console, f"\nwritten: {done.path}")


def batch_stats(
    model: Annotated[str, typer.Option(help="A model with BatchNorm, as vitbn.")],
    nbs: Annotated[
        str | None,
        typer.Option(
            metavar="N,…|none",
            help="Normalisation batch sizes, as 2,8,32 or 2,4,…,1024. Default: powers of 2 up to "
            "the SGD batch.",
            show_default=False,
        ),
    ] = None,
    sgd_batch: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Images of an optimiser step of the sweep. Default: the recipe's, else 1,024.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of each run. Default: the recipe's, else 100.", show_default=False
        ),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of all runs.")] = 1e-3,
    momentum: Annotated[
        float,
        typer.Option(
            help="Of the running averages in the literature's convention, 0.9 or 0.99: the weight "
            "of the OLD average. torch's bn_momentum is 1 less it: 0.1 or 0.01."
        ),
    ] = 0.9,
    freeze_last: Annotated[
        float,
        typer.Option(
            metavar="EPOCHS",
            help="Also freeze BatchNorm in the last epochs, as 20: of 100, and the same share of "
            "--epochs.",
        ),
    ] = 0.0,
    curve_batches: Annotated[
        str,
        typer.Option(
            metavar="N,…|none",
            help="Batch sizes of runs that are judged after each epoch by running averages and by "
            "PreciseBN.",
        ),
    ] = "32,1024",
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 1,
    dataset: DatasetOption = "mnist",
    image_size: ImageSizeOption = None,
    train_images: TrainImagesOption = None,
    validation_images: Annotated[
        int | None,
        typer.Option("--validation-images", metavar="N", help="Judge on N validation images."),
    ] = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the CPU. Default: all.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Write a report, figures and JSON there."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model over normalisation batch sizes and judge it by each kind of statistics.

    Shows what Wu & Johnson (Rethinking "Batch" in BatchNorm, 2021) found for convolutional
    networks: training noise, mini-batch against population statistics, FrozenBN, PreciseBN.
    """
    import torch

    from study.batch_stats_findings import findings
    from study.batch_stats_report import check_folder, write
    from study.batch_stats_request import OF_EPOCHS, SGD_BATCH, BatchStatsRequest
    from study.batch_stats_runs import trained
    from study.batch_stats_sizes import parse_batches, parse_nbs
    from study.batch_stats_tables import batch_stats_tables
    from study.recipe_options import training_of

    check_folder(output)
    training = training_of(model, recipe, config, fields)
    batch = sgd_batch or int(training.batch_size(None, SGD_BATCH))
    request = BatchStatsRequest(
        model,
        training.switches,
        training.recipe,
        dataset,
        training.image_size(image_size),
        train_images,
        validation_images,
        parse_nbs(nbs, batch),
        batch,
        training.epochs(epochs, OF_EPOCHS),
        lr,
        momentum,
        freeze_last,
        parse_batches(curve_batches),
        seeds,
        seed,
        device,
    )
    request.check()
    if threads is not None:
        torch.set_num_threads(threads)
    notes = console_on(stderr=True)
    for line in request.notes():
        print_line(notes, line)
    found = trained(request, settings_from(), lambda line: print_line(notes, line))
    command = shlex.join(["bnvit-study", *sys.argv[1:]])
    written = [] if output is None else write(found, command, output)
    if as_json:
        print(json.dumps({**found.as_dict(), "findings": findings(found)}, indent=2))
        return
    console = console_on()
    for table in batch_stats_tables(found):
        print_table(console, table)
    for line in ["", *findings(found), *(f"written: {path}" for path in written)]:
        print_line(console, line)
