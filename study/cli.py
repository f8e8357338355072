"""The commands: parse, call, print – nothing else. Heavy imports wait for their command."""

import importlib.metadata
import json
from dataclasses import replace
from typing import Annotated

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
    MetricsHostOption,
    MetricsPortOption,
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
    print_view,
    settings_from,
)

app = typer.Typer(
    name="bnvit-study",
    help="Is a BatchNorm vision transformer better than its LayerNorm twin, each at its best "
    "learning rate and batch size?",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bnvit-study {importlib.metadata.version('bnvit-study')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    log_format: Annotated[
        str, typer.Option("--log-format", help="Of what goes to stderr: text or json.")
    ] = "text",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Read by `study.entry` already, so that --debug and --log-format may stand anywhere."""


@app.command(epilog="Example: bnvit-study run --model vitbn --trials 20")
def run(
    model: Annotated[str, typer.Option(help="Model; see 'bnvit-study models --all'.")],
    trials: Annotated[int, typer.Option(help="The study's total, not an addition.")] = 20,
    dataset: DatasetOption = "mnist",
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs per trial, at most. Default: the recipe's, else 3."),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Learning rates to search. Default: 1e-5:1e-2."),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Batch sizes to search. Default: 20:120."),
    ] = None,
    space: Annotated[
        str, typer.Option(help="default, or article: the article's unequal learning rates.")
    ] = "default",
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=[log:]LOW:HIGH",
            help="Search another field of the recipe or switch of the model; repeatable.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    config: ConfigOption = None,
    fields: FieldsOption = None,
    target: TargetOption = None,
    sampler: Annotated[
        str, typer.Option(help="tpe, gp (learns only from trials trained to the end) or random.")
    ] = "tpe",
    pruner: Annotated[
        str | None,
        typer.Option(help="asha, median or none. Default: asha; with gp none.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, data order and suggestions.")] = 0,
    train_images: TrainImagesOption = None,
    image_size: ImageSizeOption = None,
    skip_broken: SkipBrokenOption = False,
    weights: WeightsOption = None,
    convert: ConvertOption = False,
    precision: PrecisionOption = "float32",
    compile_: CompileOption = "auto",
    keep_weights: KeepWeightsOption = None,
    new_head: NewHeadOption = False,
    teacher: TeacherOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    workers_per_gpu: WorkersPerGpuOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    study: Annotated[
        str | None, typer.Option(help="Study name. Default: data set and model.")
    ] = None,
    fresh: FreshOption = False,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a model's learning rate and batch size; start, go on with, or extend a study."""
    from study.conduct import conducted
    from study.recipe_options import searched_fields, training_of
    from study.request import (
        SEARCH_EPOCHS,
        Request,
        default_pruner,
        parse_space,
        parse_workers,
    )

    training = training_of(model, recipe, config, fields, teacher)
    ranges = parse_space(model, space, lr, batch_size, training.preset)
    request = Request(
        model=model,
        switches=training.switches,
        recipe=training.recipe,
        target=target,
        dataset=dataset,
        trials=trials,
        epochs=training.epochs(epochs, SEARCH_EPOCHS),
        space=replace(ranges, others=searched_fields(model, search)),
        sampler=sampler,  # type: ignore[arg-type]  # checked by Request.check
        pruner=pruner or default_pruner(sampler),  # type: ignore[arg-type]
        seed=seed,
        train_images=train_images,
        image_size=training.image_size(image_size),
        skip_broken=skip_broken,
        weights=weights,
        convert=convert,
        new_head=new_head,
        precision=precision,  # type: ignore[arg-type]
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
        metrics_port=metrics_port,
        metrics_host=metrics_host,
    )
    settings = settings_from(storage, mlflow, checkpoints, metrics_port, metrics_host)
    conducted([request], settings, as_json)


@app.command(epilog="Example: bnvit-study studies")
def studies(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the studies in the store."""
    from study.storage import open_store
    from study.studies import all_overviews
    from study.tables import studies_table

    with open_store(settings_from(storage)) as store:
        seen = all_overviews(store)
    if as_json:
        print(json.dumps([one.as_dict() for one in seen], default=str, indent=2))
    elif not seen:
        print("no studies yet; start one with: bnvit-study run --model vitbn --trials 20")
    else:
        print_view(console_on(), studies_table(seen))


@app.command(epilog="Example: bnvit-study show mnist-vitbn")
def show(study: str, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Show a study: its trials, its best, its outcomes."""
    from study.storage import open_store
    from study.studies import show_study
    from study.summary import summary
    from study.tables import trials_table

    with open_store(settings_from(storage)) as store:
        seen = show_study(store, study)
    if as_json:
        print(json.dumps(seen.as_dict(), default=str, indent=2))
        return
    console = console_on()
    print_view(console, trials_table(seen))
    for line in ["", *summary(seen)]:
        print_line(console, line)


@app.command(epilog="Example: bnvit-study ui")
def ui(
    dashboard_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of Optuna Dashboard.")
    ] = 8080,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")
    ] = 5000,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Serve Optuna Dashboard and the MLflow UI on this machine until Ctrl-C."""
    from study import data_dir
    from study.settings import TRACKING_OFF, is_server
    from study.stop import stop_on_signals
    from study.storage import open_store, tracking_uri
    from study.studies import pages
    from study.ui import check_ports, serve

    settings = settings_from(storage, mlflow)
    settings.check()
    ports = (dashboard_port, mlflow_port)
    check_ports(*ports[: 1 if is_server(settings.mlflow_uri or "") else 2])
    data_dir.prepare(settings.data_dir)
    with stop_on_signals() as stop, open_store(settings) as store:
        # Without tracking there may yet be what was tracked before.
        given = None if settings.mlflow_uri == TRACKING_OFF else settings.mlflow_uri
        uri = tracking_uri(given, store)
        with serve(store, uri, ports, settings.data_dir) as servers:
            print(f"Optuna Dashboard: {servers.dashboard_url}")
            print(f"MLflow:           {servers.mlflow_url}")
            for name, study_id, experiment_id in pages(store):
                print(f"{name}\n  trials:  {servers.dashboard_page(study_id)}")
                if experiment_id is not None:
                    print(f"  compare: {servers.comparison_page(experiment_id)}")
            print("Ctrl-C stops both.", flush=True)
            while not stop.wait(1.0):
                servers.check()
