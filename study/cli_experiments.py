"""The commands for experiments: given values, several seeds. Parse, call, print – nothing else."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli_options import (
    CheckpointsOption,
    CompileOption,
    ConfigOption,
    ConvertOption,
    DatasetOption,
    DeviceOption,
    EngineOption,
    FieldsOption,
    FreshOption,
    GpusPerWorkerOption,
    ImageSizeOption,
    JsonOption,
    KeepWeightsOption,
    MlflowOption,
    NewHeadOption,
    PrecisionOption,
    RayAddressOption,
    RecipeOption,
    SkipBrokenOption,
    StorageOption,
    TargetOption,
    TeacherOption,
    TrainImagesOption,
    WeightsOption,
    WorkersOption,
    WorkersPerGpuOption,
    console_on,
    print_line,
    settings_from,
)

if TYPE_CHECKING:
    from study.plan import Plan
    from study.request import Request
    from study.settings import Settings

_EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", help="Epochs of each run. Default: the recipe's, else 30."),
]
_FirstSeedOption = Annotated[
    int, typer.Option("--seed", help="The first seed; a search trains with 0.")
]


def experiment_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (fit, "fit mnist-vitbn --on train+val --seeds 10"),
        (sweep, "sweep --models vit,vitbnffn,vitbn --lr 0.0005,0.005,0.01 --seeds 3"),
        (replay, "replay mnist-vitbn 13"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def fit(
    on: Annotated[
        str,
        typer.Option(
            metavar="train|train+val",
            help="Train on the train split, with validation at each epoch, or on all that is no "
            "test image.",
        ),
    ],
    search: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="A search that has ended: its best values."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead of STUDY: a model.")] = None,
    lr: Annotated[float | None, typer.Option(help="Its learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Its batch size.")] = None,
    epochs: _EpochsOption = None,
    seeds: Annotated[int, typer.Option(help="Runs in all, each with a seed of its own.")] = 10,
    seed: _FirstSeedOption = 1,
    dataset: DatasetOption = "mnist",
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    target: TargetOption = None,
    train_images: TrainImagesOption = None,
    image_size: ImageSizeOption = None,
    skip_broken: SkipBrokenOption = False,
    weights: WeightsOption = None,
    convert: ConvertOption = False,
    new_head: NewHeadOption = False,
    teacher: TeacherOption = None,
    precision: PrecisionOption = "float32",
    compile_: CompileOption = "auto",
    keep_weights: KeepWeightsOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    workers_per_gpu: WorkersPerGpuOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the fit. Default: that of the search, and -fit.")
    ] = None,
    fresh: FreshOption = False,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one configuration at full length with several seeds; test images are read at the end.

    More seeds are added by the same command with a larger number.
    """
    from models.errors import InputError
    from study.conduct import conducted
    from study.experiment_requests import parse_split, planned
    from study.plan import PLANNED_EPOCHS, Plan
    from study.recipe_options import training_of
    from study.request import Request, parse_workers

    settings = settings_from(storage, mlflow, checkpoints)
    training = training_of(model or "vit", recipe, config, fields, teacher)
    if search is None:
        batch_size = batch_size or training.preset.batch_size
    given = {"--model": model, "--lr": lr, "--batch-size": batch_size}
    if search is not None and (named := [name for name, value in given.items() if value]):
        raise InputError(f"the values come from '{search}'; leave out {', '.join(named)}")
    if search is None and (missing := [name for name, value in given.items() if value is None]):
        raise InputError(f"fit needs a STUDY, or a model and its values: {', '.join(missing)}")
    if search is not None and (recipe or config or fields or teacher):
        options = "--recipe, --config, --set, --teacher"
        raise InputError(f"the recipe comes from '{search}'; leave out {options}")
    request = Request(
        model=model or "vit",
        switches=training.switches,
        recipe=training.recipe,
        target=target,
        dataset=dataset,
        epochs=training.epochs(epochs, PLANNED_EPOCHS),
        seed=seed,
        train_images=train_images,
        image_size=training.image_size(image_size),
        skip_broken=skip_broken,
        weights=weights,
        convert=convert,
        new_head=new_head,
        precision=precision,  # type: ignore[arg-type]  # checked by Request.check
        compile=compile_,  # type: ignore[arg-type]
        keep_weights=keep_weights,  # type: ignore[arg-type]
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
    plan = Plan("fit", ((lr or 0.0, batch_size or 0),), seeds, parse_split(on))
    asked = planned(request, plan) if search is None else _best_of(search, request, plan, settings)
    conducted([asked], settings, as_json)


def _best_of(search: str, request: "Request", plan: "Plan", settings: "Settings") -> "Request":
    from study.experiment_requests import fit_of_study
    from study.storage import open_store
    from study.studies import show_study

    with open_store(settings) as store:
        return fit_of_study(show_study(store, search), request, plan)


def sweep(
    models: Annotated[str, typer.Option(metavar="NAME,…", help="Models, a study each.")],
    lr: Annotated[str, typer.Option(metavar="LR,…", help="Learning rates.")] = "0.0005,0.005,0.01",
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Batch sizes. Default: the recipe's, else 100."),
    ] = None,
    epochs: _EpochsOption = None,
    seeds: Annotated[int, typer.Option(help="Runs of each configuration.")] = 3,
    seed: _FirstSeedOption = 1,
    on: Annotated[
        str, typer.Option(metavar="train|train+val", help="What is trained on.")
    ] = "train",
    dataset: DatasetOption = "mnist",
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    target: TargetOption = None,
    train_images: TrainImagesOption = None,
    image_size: ImageSizeOption = None,
    skip_broken: SkipBrokenOption = False,
    weights: WeightsOption = None,
    convert: ConvertOption = False,
    new_head: NewHeadOption = False,
    teacher: TeacherOption = None,
    precision: PrecisionOption = "float32",
    compile_: CompileOption = "auto",
    keep_weights: KeepWeightsOption = None,
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
    as_json: JsonOption = False,
) -> None:
    """Train every learning rate with every batch size and seed, for each model: a grid."""
    from study.conduct import conducted
    from study.experiment_requests import parse_grid, parse_names, parse_split, sweep_of
    from study.plan import PLANNED_EPOCHS, Plan
    from study.recipe_options import training_of
    from study.request import Request, parse_workers

    names = parse_names(models)
    training = training_of(names[0], recipe, config, fields, teacher)
    request = Request(
        model=names[0],
        switches=training.switches,
        recipe=training.recipe,
        target=target,
        dataset=dataset,
        epochs=training.epochs(epochs, PLANNED_EPOCHS),
        seed=seed,
        train_images=train_images,
        image_size=training.image_size(image_size),
        skip_broken=skip_broken,
        weights=weights,
        convert=convert,
        new_head=new_head,
        precision=precision,  # type: ignore[arg-type]  # checked by Request.check
        compile=compile_,  # type: ignore[arg-type]
        keep_weights=keep_weights,  # type: ignore[arg-type]
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
    grid = parse_grid(lr, training.batch_size(batch_size, 100))
    plan = Plan("sweep", grid, seeds, parse_split(on))
    requests = sweep_of(
        request,
        names,
        plan,
        lambda name: training_of(name, recipe, config, fields, teacher).switches,
    )
    conducted(requests, settings_from(storage, mlflow, checkpoints), as_json)


def replay(
    study: Annotated[str, typer.Argument(help="A study.")],
    trial: Annotated[int, typer.Argument(help="The number of a trial that has ended.")],
    device: DeviceOption = "auto",
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do a trial once more: is the suggestion the same, and is the curve? Exit code 1 if not.

    Nothing is written. On the same processor with the same versions both are the same to the last
    digit, however many workers there were.
    """
    from study.replica import replay as again
    from study.replica import replica_lines
    from study.storage import open_store

    settings = settings_from(storage)
    notes = console_on(stderr=True)
    with open_store(settings) as store:
        found = again(store, settings, study, trial, device, lambda line: print_line(notes, line))
    if as_json:
        print(json.dumps({**asdict(found), "is_same": found.is_same}, indent=2))
    else:
        for line in replica_lines(found):
            print_line(console_on(), line)
    raise typer.Exit(0 if found.is_same else 1)
