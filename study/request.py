"""What `run` is asked for: a frozen value that knows its checks and its command line."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from models.errors import InputError
from models.registry import variant
from models.switches import Switches
from objectives.data_options import DataOptions, short_name
from objectives.precision import Precision, check_precision
from objectives.recipe import PRECISION
from objectives.recipes import Preset, Recipe, preset
from objectives.search_space import SearchSpace, article_space
from study.checkpoint_places import shown_place
from study.engine import Engine, check_engine
from study.identity import PrunerName, SamplerName
from study.keeping import Keep
from study.plan import Plan
from study.recipe_checks import check_training
from study.recipe_options import training_words
from study.settings import shown_address
from study.stability_plan import StabilityPlan

Workers = int | Literal["auto"]
Compile = Literal["auto", "on", "off"]

SEARCH_EPOCHS = 3  # per trial, at most
MOST = 10_000  # trials of a study, epochs of a trial: more is a slip of the finger
MOST_WORKERS = 1_000
LONGEST_NAME = 200  # characters; Optuna and MLflow store a little more

# Options whose value is that of the field.
_PLAIN_OPTIONS = (
    "dataset",
    "epochs",
    "sampler",
    "pruner",
    "seed",
    "train_images",
    "image_size",
    "precision",
    "weights",
    "device",
    "workers",
    "workers_per_gpu",
    "engine",
    "ray_address",
    "gpus_per_worker",
    "compile",
    "keep_weights",
    "target",
    "study",
    "metrics_port",
    "metrics_host",
)
# That a fit takes over from its study.
_INHERITED = {"dataset", "train_images", "image_size", "precision", "weights"}
_SEARCHING = {"sampler", "pruner"}
_FLAGS = ("skip_broken", "convert", "new_head", "fresh")


@dataclass(frozen=True)
class Request:
    """A study as asked for on the command line."""

    model: str
    switches: Switches | None = None  # None: the model's defaults
    dataset: str = "mnist"
    trials: int = 20  # the study's total
    epochs: int = SEARCH_EPOCHS  # per trial, at most
    space: SearchSpace = field(default_factory=SearchSpace)
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "asha"
    seed: int = 0
    train_images: int | None = None  # None: the whole train split
    image_size: int | None = None  # pixels; None: as the data set has it
    skip_broken: bool = False
    weights: str | None = None  # a file, timm:NAME or timm; None: random
    convert: bool = False
    new_head: bool = False
    device: str = "auto"
    study: str | None = None  # None: named after data set and model
    fresh: bool = False
    storage: str | None = None  # as on the command line, to be said again
    mlflow: str | None = None
    checkpoints: str | None = None
    workers: Workers | None = None  # local ones; None: one per GPU, or one on the CPU
    workers_per_gpu: int = 1
    engine: Engine = "local"  # what places the workers
    ray_address: str | None = None  # HOST:PORT or local; None: RAY_ADDRESS, one here, a new one
    gpus_per_worker: float | None = None  # with Ray; None: one where the cluster has GPUs
    metrics_port: int | None = None  # of the first local worker; None: no metrics
    metrics_host: str | None = None
    precision: Precision = PRECISION
    recipe: Recipe = field(default_factory=Recipe)
    target: float | None = None  # validation accuracy whose time and epochs are noted
    compile: Compile = "auto"
    keep_weights: Keep | None = None  # None: as the study has it; a new one keeps the best's
    plan: Plan | StabilityPlan | None = None  # None: a search

    @property
    def is_joined(self) -> bool:
        """Whether it trains on the validation images, too."""
        return self.plan is not None and self.plan.trained_on == "train+val"

    @property
    def study_name(self) -> str:
        """The study's name, or its default: data set and model, and what it is if no search."""
        if self.study is not None:
            return self.study
        data = short_name(self.dataset)
        marks = [] if self.precision == PRECISION else [str(self.precision)]
        marks += [] if self.recipe.name == "article" else [self.recipe.name]
        marked = "".join(f"-{mark}" for mark in marks)
        kind = "" if self.plan is None else f"-{self.plan.kind}"
        return f"{data}-{variant(self.model).name.replace(':', '-')}{marked}{kind}"

    @property
    def data_options(self) -> DataOptions:
        """How the data set is read; raises InputError."""
        return DataOptions(self.image_size, self.skip_broken)

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the data."""
        if self.plan is not None:
            self.plan.check()
        self.space.check(variant(self.model))
        _within("trials", self.trials, MOST)
        _within("epochs", self.epochs, MOST)
        if self.train_images is not None:
            _within("train images", self.train_images)
        check_training(self)
        if self.weights is None and (self.convert or self.new_head):
            option = "--convert" if self.convert else "--new-head"
            raise InputError(f"{option} is about trained weights; name them with --weights")
        if self.convert:
            variant(self.model).check_convertible()
        self.data_options  # noqa: B018  # which checks itself
        check_precision(self.precision)
        _one_of("compile", self.compile, get_args(Compile))
        if self.keep_weights is not None:
            _one_of("keep-weights", self.keep_weights, get_args(Keep))
        if isinstance(self.workers, int):
            _within("workers", self.workers, MOST_WORKERS, least=0)
        check_engine(self)
        if self.metrics_port is not None and self.workers == 0:
            raise InputError("--workers 0 starts none to serve metrics; give each worker the port")
        _one_of("sampler", self.sampler, get_args(SamplerName))
        _one_of("pruner", self.pruner, get_args(PrunerName))
        if self.sampler == "gp" and self.pruner != "none":
            raise InputError(
                "the sampler gp learns only from trials trained to the end; use --pruner none"
            )
        bits = 63 if self.plan is None else 31
        if not 0 <= self.seed < 2**bits:
            raise InputError(f"seed {self.seed} must be a whole number from 0 to 2^{bits} - 1")
        name = self.study_name
        if not name.strip() or "/" in name or len(name) > LONGEST_NAME:
            raise InputError(
                f"study name '{name[:LONGEST_NAME]}' must not be empty, contain '/' "
                f"or have more than {LONGEST_NAME} characters"
            )

    def command(self, **changes: object) -> str:
        """The command line that asks for this, with `changes` to its fields."""
        asked = replace(self, **changes)  # type: ignore[arg-type]  # field names and types
        brought = preset(asked.recipe.name)
        usual = self.plan.usual_epochs if self.plan is not None else SEARCH_EPOCHS
        default = Request(
            model=asked.model,
            epochs=usual if brought.epochs is None else brought.epochs,
            image_size=brought.image_size,
            space=parse_space(asked.model, "default", None, None, brought),
        )
        words = asked._what_to_train()
        for name in asked._own_options():
            value = getattr(asked, name)
            if value != getattr(default, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += asked._ranges(default.space)
        if asked.plan is None or asked.plan.source is None:
            words += training_words(asked.recipe, asked.switches)
        words += asked.places()
        words += [f"--{name.replace('_', '-')}" for name in asked._flags()]
        return shlex.join(words)

    def _flags(self) -> Iterator[str]:
        is_inherited = self.plan is not None and self.plan.source
        for name in _FLAGS:
            if getattr(self, name) and not (is_inherited and name != "fresh"):
                yield name

    def _own_options(self) -> Iterator[str]:
        """Of the plain options those that do not follow from what is planned."""
        follow: set[str] = set()
        if self.plan is not None:
            follow |= _SEARCHING
            follow |= _INHERITED if self.plan.source is not None else set()
            follow |= {"study"} if self.plan.models else set()
        return (name for name in _PLAIN_OPTIONS if name not in follow)

    def _what_to_train(self) -> list[str]:
        if self.plan is not None:
            return self.plan.words(self.model)
        return ["bnvit-study", "run", "--model", self.model, "--trials", str(self.trials)]

    def _ranges(self, default: SearchSpace) -> Iterator[str]:
        """The options that say what a search searches."""
        for name in ("lr", "batch_size"):
            low, high = getattr(self.space, name)
            if self.plan is None and (low, high) != getattr(default, name):
                yield from (f"--{name.replace('_', '-')}", f"{low}:{high}")
        for one in self.space.others:
            yield from ("--search", str(one))

    def places(self) -> list[str]:
        """The options that said where the store and MLflow are; a password is left out."""
        words: list[str] = []
        for option, address in (("--storage", self.storage), ("--mlflow", self.mlflow)):
            if address is not None:
                words += [option, shown_address(address)]
        if self.checkpoints is not None:
            words += ["--checkpoints", shown_place(self.checkpoints)]
        return words


def default_pruner(sampler: str) -> PrunerName:
    """The pruner that goes with a sampler."""
    return "none" if sampler == "gp" else "asha"


def parse_space(
    model: str, name: str, lr: str | None, batch_size: str | None, preset: Preset | None = None
) -> SearchSpace:
    """The search space from its name and the texts of --lr and --batch-size.

    A preset may have a batch size of its own.
    """
    _one_of("space", name, ("default", "article"))
    if name == "article" and lr is not None:
        raise InputError("--space article sets the learning rates; leave out --lr")
    space = article_space(model) if name == "article" else SearchSpace()
    if preset is not None and preset.batch_size is not None:
        space = replace(space, batch_size=(preset.batch_size, preset.batch_size))
    if lr is not None:
        space = replace(space, lr=_parse_range("lr", lr))
    if batch_size is not None:
        first, last = _parse_range("batch-size", batch_size)
        if not (first.is_integer() and last.is_integer()):
            raise InputError(f"--batch-size {batch_size} must be whole numbers")
        space = replace(space, batch_size=(int(first), int(last)))
    return space


def parse_workers(text: str | None) -> Workers | None:
    """The number of local workers from the text of --workers; raises InputError."""
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"--workers {text} must be a whole number from 0, or auto")
    return int(text)


def _parse_range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"--{name} {text} must be LOW:HIGH, two numbers")
    return low, high


def _within(name: str, value: int, most: int | None = None, least: int = 1) -> None:
    if value < least:
        raise InputError(f"{name} {value} must be at least {least}")
    if most is not None and value > most:
        raise InputError(f"{name} {value} must be at most {most:,}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"unknown {name} '{value}'; known: {', '.join(known)}")
