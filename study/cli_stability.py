"""The command that looks for the largest stable learning rate. Parse, call, print – no more."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import (
    CheckpointsOption,
    CompileOption,
    ConfigOption,
    DatasetOption,
    DeviceOption,
    EngineOption,
    FieldsOption,
    FreshOption,
    GpusPerWorkerOption,
    ImageSizeOption,
    JsonOption,
    MlflowOption,
    PrecisionOption,
    RayAddressOption,
    RecipeOption,
    SkipBrokenOption,
    StorageOption,
    TrainImagesOption,
    WorkersOption,
    WorkersPerGpuOption,
    settings_from,
)


def stability_command(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: bnvit-study stability --models vit,vitbn --batch-sizes 16,128")(
        stability
    )


def stability(
    models: Annotated[str, typer.Option(metavar="NAME,…", help="Models, a study each.")],
    batch_sizes: Annotated[str, typer.Option(metavar="N,…", help="Batch sizes.")] = "16,32,64,128",
    lr: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Learning rates between which to look.")
    ] = "1e-5:10",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each run. Default: the recipe's, else 3.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each learning rate and batch size.")] = 3,
    steps: Annotated[
        int, typer.Option(help="Learning rates between the largest stable one and the next.")
    ] = 3,
    grid: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Learning rates before that, evenly on the logarithmic scale. Default: one per "
            "half decade.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first seed; a search trains with 0.")] = 1,
    dataset: DatasetOption = "mnist",
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    train_images: TrainImagesOption = None,
    image_size: ImageSizeOption = None,
    skip_broken: SkipBrokenOption = False,
    precision: PrecisionOption = "float32",
    compile_: CompileOption = "auto",
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    workers_per_gpu: WorkersPerGpuOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Study name; of several models the beginning of each. Default: the data."
        ),
    ] = None,
    fresh: FreshOption = False,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write figures (PNG) there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the largest learning rate at which no run diverges, per model and batch size.

    All seeds train a coarse grid, then learning rates between the last stable one and the next.
    """
    from study.bisection import Bisection
    from study.conduct import conducted
    from study.experiment_requests import parse_names, parse_sizes, sweep_of
    from study.recipe_options import training_of
    from study.request import Request, parse_space, parse_workers
    from study.stability_plan import EPOCHS, StabilityPlan, usual_grid
    from study.stability_report import StabilityReport

    names = parse_names(models)
    ends = parse_space(names[0], "default", lr, None).lr
    sizes = tuple(parse_sizes(batch_sizes, "batch-sizes"))
    rates = usual_grid(ends) if grid is None else grid
    plan = StabilityPlan(Bisection(ends, sizes, rates, steps, seeds))
    training = training_of(names[0], recipe, config, fields)
    request = Request(
        model=names[0],
        switches=training.switches,
        recipe=training.recipe,
        dataset=dataset,
        epochs=training.epochs(epochs, EPOCHS),
        seed=seed,
        train_images=train_images,
        image_size=training.image_size(image_size),
        skip_broken=skip_broken,
        precision=precision,  # type: ignore[arg-type]  # checked by Request.check
        compile=compile_,  # type: ignore[arg-type]
        device=device,
        workers=parse_workers(workers),
        workers_per_gpu=workers_per_gpu,
        engine=engine,  # type: ignore[arg-type]
        ray_address=ray_address,
        gpus_per_worker=gpus_per_worker,
        study=study,
        fresh=fresh,
        storage=storage,
        mlflow=mlflow,
        checkpoints=checkpoints,
    )
    requests = sweep_of(
        request, names, plan, lambda name: training_of(name, recipe, config, fields).switches
    )
    report = StabilityReport(as_json, output)
    report.check()
    conducted(requests, settings_from(storage, mlflow, checkpoints), as_json, report)
