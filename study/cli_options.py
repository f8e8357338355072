"""What the commands share: options, settings from them, and how they print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from study.settings import Settings
    from study.tabular import Tabular

PLAIN_WIDTH = 160  # columns, where output goes to a file or a pipe

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="A shared Postgres, as postgresql://USER:PASSWORD@HOST/DB; better set in "
        "BNVIT_STORAGE_URL, as others can read a command line. Default: an embedded server.",
        show_default=False,
    ),
]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        metavar="URI",
        help="MLflow server or database, or none. Also MLFLOW_TRACKING_URI. "
        "Default: a database beside the studies.",
        show_default=False,
    ),
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoints",
        metavar="URL",
        help="Where all nodes find checkpoints: a shared folder or any fsspec URL. Default: the "
        "MLflow server's artifacts if there is one, else local (this node only).",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto (CUDA, else the CPU), cpu, cuda, cuda:N, mps.")
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet, imagenet, folder:FOLDER (an "
        "ImageFolder), idx:FOLDER (files in MNIST's format) or fake; all but the last three also "
        "as NAME:FOLDER.",
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option("--image-size", metavar="PIXELS", help="Scale the images to this size."),
]
SkipBrokenOption = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read.")
]
SwitchesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A switch of the model; repeatable."),
]
FieldsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A field of the recipe or a switch of the model; repeatable. bn_momentum is torch's, "
        "the weight of the newest batch: 0.1 is what the literature calls 0.9.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="How to train: article, deit, augreg-none to -strong2, finetune, tiny-transfer; "
        "'bnvit-study recipes' shows them. Default: article.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE.toml", help="Fields and switches, as for --set; that goes first."
    ),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        "--target",
        metavar="ACCURACY",
        help="Note the time and the epochs to this validation accuracy, as 0.97.",
    ),
]
TrainImagesOption = Annotated[
    int | None,
    typer.Option("--train-images", metavar="N", help="Train on N images, for a quick look."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|timm:NAME",
        help="Trained weights to begin with; timm alone: the backbone's, downloaded.",
    ),
]
ConvertOption = Annotated[
    bool, typer.Option("--convert", help="The weights are LayerNorm's: make BatchNorm of it.")
]
NewHeadOption = Annotated[
    bool, typer.Option("--new-head", help="Leave out the weights of the classifier.")
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="FILE|timm:NAME",
        help="Distil from a trained model, hard unless --set distillation=soft says otherwise: an "
        "exported file, a checkpoint, or one of timm's, downloaded.",
        show_default=False,
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="float32, or bf16 or fp16: matrix products in half precision, marked everywhere.",
    ),
]
CompileOption = Annotated[
    str,
    typer.Option(
        "--compile",
        help="Compile the training step (on CUDA: record it as a graph): on, off or auto, "
        "which is on CUDA always, on a CPU where it pays.",
    ),
]
KeepWeightsOption = Annotated[
    str | None,
    typer.Option(
        "--keep-weights",
        metavar="best|all",
        help="Whose weights stay in MLflow: the best trial's, or those of each that is trained to "
        "its end, for 'soup'. A rerun may change it. Default: as the study has it, else best.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        help="Local workers; 0: this node trains nothing; auto: as many as a CPU trains most "
        "with, by measurement. Default: one per GPU, else one; with Ray all there is room for.",
        show_default=False,
    ),
]
WorkersPerGpuOption = Annotated[
    int, typer.Option("--workers-per-gpu", min=1, help="Workers that share a GPU.")
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="What places the workers: this node, or Ray on the nodes of a cluster.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Of the Ray cluster; local: a new one. Default: RAY_ADDRESS, else a cluster that runs "
        "here, else Ray is started for this run.",
        show_default=False,
    ),
]
GpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        metavar="SHARE",
        help="With Ray: of a GPU for each worker, as 0.25. Default: 1, without GPUs one CPU.",
        show_default=False,
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Serve metrics for Prometheus there; each further local worker takes the next port.",
    ),
]
MetricsHostOption = Annotated[
    str | None,
    typer.Option(
        "--metrics-host",
        metavar="ADDRESS",
        help="Where that port is: 0.0.0.0 for all networks. Default: 127.0.0.1.",
        show_default=False,
    ),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Use the next free name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def settings_from(
    storage: str | None = None,
    mlflow: str | None = None,
    checkpoints: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str | None = None,
) -> "Settings":
    """The environment's settings, with what the command line says instead.

    Raises InputError naming the variable that cannot be used.
    """
    from models.errors import InputError
    from study.settings import read_settings
    from study.trust import trust

    given = {
        "storage_url": storage,
        "mlflow_uri": mlflow,
        "checkpoints": checkpoints,
        "metrics_port": metrics_port,
        "metrics_host": metrics_host,
    }
    settings = read_settings({key: value for key, value in given.items() if value is not None})
    if metrics_host is not None and settings.metrics_port is None:
        raise InputError("--metrics-host says where --metrics-port is; give that as well")
    trust(settings)
    return settings


def console_on(stderr: bool = False) -> "Console":
    """A console as wide as its terminal, or wide enough for a file."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def print_view(console: "Console", view: "RenderableType") -> None:
    """Print a table or the like; to a file without the spaces that fill its lines."""
    if console.is_terminal:
        console.print(view)
        return
    with console.capture() as capture:
        console.print(view)
    for line in capture.get().splitlines():
        print_line(console, line.rstrip())


def print_table(console: "Console", table: "Tabular") -> None:
    """Print a table under its title, and its notes below it.

    One that is wider than the terminal is printed row by row, as nothing of it may be cut off.
    """
    print_line(console, f"\n{table.title}")
    if table.width <= console.width:
        print_view(console, table.to_rich())
    else:
        for line in table.to_records():
            print_line(console, line)
    for note in table.notes:
        print_line(console, note)


def print_line(console: "Console", line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, markup=False, soft_wrap=True)
