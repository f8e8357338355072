"""What a study is: the fields that are fixed when it is created, and how two studies differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import optuna

from models.registry import stored_switches, variant
from models.switches import Switches, SwitchValue
from objectives.data_options import SPLIT_SEED, DataOptions
from objectives.precision import Precision
from objectives.recipe import (
    PRECISION,
    RECALIBRATION_IMAGES,
    InitialWeights,
    TrainConfig,
)
from objectives.recipes import Recipe, field_types, stored_recipe
from objectives.search_space import START_POINTS, SearchSpace
from objectives.searched import Searched, Value
from study.bisection import Bisection
from study.errors import VersionError
from study.plan import MOST_SEEDS, Configuration, Held, Kind, TrainedOn, Values, planned_values

SCHEMA_VERSION = 1
IDENTITY_KEY = "bnvit:identity"
UUID_KEY = "bnvit:uuid"
DERIVED = ("rungs", "validation_images", "recalibration_images")  # fields that follow from others

SamplerName = Literal["tpe", "gp", "random"]
PrunerName = Literal["asha", "median", "none"]


@dataclass(frozen=True)
class StudyIdentity:
    """Fixed for a study's life. Trials, workers, device and threads are not in it."""

    model: str
    switches: dict[str, SwitchValue]
    dataset: str
    data_checksum: str
    train_images: int
    validation_images: int
    epochs: int  # at most, per trial
    rungs: tuple[int, ...]  # images seen
    lr: tuple[float, float]
    batch_size: tuple[int, int]
    sampler: SamplerName
    pruner: PrunerName
    seed: int
    image_size: int | None = None  # asked for, in pixels; None: as the data set has it
    skip_broken: bool = False
    weights: str | None = None  # that each trial begins with; None: random
    weights_checksum: str | None = None  # of a file
    convert: bool = False
    new_head: bool = False
    recalibration_images: int = RECALIBRATION_IMAGES
    split_seed: int = SPLIT_SEED
    recipe: Recipe = field(default_factory=Recipe)
    others: tuple[Searched, ...] = ()  # that are searched beside learning rate and batch size
    target: float | None = None  # validation accuracy whose time and epochs are noted
    teacher_checksum: str | None = None  # of the recipe's teacher
    precision: Precision = PRECISION
    kind: Kind = "search"
    configurations: tuple[Configuration, ...] = ()  # trained with each seed; of a search none
    trained_on: TrainedOn = "train"
    batch_sizes: tuple[int, ...] = ()  # of a bisection, as what follows
    grid: int = 0
    steps: int = 0
    seeds: int = 0  # of each learning rate; in a fit or a sweep they follow from the total
    schema_version: int = SCHEMA_VERSION

    @property
    def space(self) -> SearchSpace:
        """The ranges that its trials' values lie in."""
        seeds = (self.seed, self.seed + MOST_SEEDS - 1) if self.is_planned else None
        return SearchSpace(self.lr, self.batch_size, seeds, self.others)

    @property
    def is_planned(self) -> bool:
        """Whether no sampler gives its trials their values: a seed is one of them."""
        return self.kind != "search"

    @property
    def is_tested(self) -> bool:
        """Whether the test images are read at the end of a trial: nothing is chosen by it."""
        return self.kind in ("fit", "sweep")

    @property
    def is_watched(self) -> bool:
        """Whether it matters where in the model a trial stops being finite."""
        return self.kind == "stability"

    @property
    def bisection(self) -> Bisection:
        """How the learning rates of a stability study are chosen."""
        return Bisection(self.lr, self.batch_sizes, self.grid, self.steps, self.seeds)

    @property
    def is_joined(self) -> bool:
        """Whether it trains on the validation images, too."""
        return self.trained_on == "train+val"

    @property
    def value_name(self) -> str:
        """Which accuracy a trial's value is."""
        return "test_accuracy" if self.is_joined else "val_accuracy"

    def slot_values(self, numbers: range, held: Held) -> list[Values]:
        """Values for new slots of these numbers; an empty one is left to the sampler.

        Fewer where the others depend on what is being trained.
        """
        if self.kind == "stability":
            return self.bisection.values(self.seed, numbers, held)
        if self.is_planned:
            return planned_values(self.configurations, self.seed, numbers, held)
        starts = self.space.starts(self.seed) if numbers.start < START_POINTS else []
        return [starts[number] if number < len(starts) else {} for number in numbers]

    @property
    def model_switches(self) -> Switches:
        """The model's switches, typed."""
        return stored_switches(self.model, self.switches)

    @property
    def title(self) -> str:
        """The model, for tables; with what of its training is not the usual."""
        precision = [] if self.precision == PRECISION else [str(self.precision)]
        return ", ".join([self.model, *precision, *self.recipe.marks])

    @property
    def uses_batch_norm(self) -> bool:
        """Whether training depends on which images are normalised together."""
        return variant(self.model).uses_batch_norm

    @property
    def data_options(self) -> DataOptions:
        """How the data set is read."""
        return DataOptions(self.image_size, self.skip_broken)

    @property
    def initial(self) -> InitialWeights | None:
        """The trained weights that each trial begins with; None: random ones."""
        if self.weights is None:
            return None
        return InitialWeights(self.weights, self.weights_checksum, self.convert, self.new_head)

    def config(self, values: Mapping[str, Value]) -> TrainConfig:
        """What a trial of the study trains with these values of its parameters."""
        mine = {one.name: values[one.name] for one in self.others}
        of_recipe = {name: value for name, value in mine.items() if name in field_types()}
        of_model = {name: value for name, value in mine.items() if name not in of_recipe}
        return TrainConfig(
            model=self.model,
            switches=replace(self.model_switches, **of_model),
            dataset=self.dataset,
            lr=float(values["lr"]),
            batch_size=int(values["batch_size"]),
            rungs=self.rungs,
            train_images=self.train_images,
            seed=int(values.get("seed", self.seed)),
            initial=self.initial,
            recipe=replace(self.recipe, **of_recipe),
            target=self.target,
            teacher_checksum=self.teacher_checksum,
            precision=self.precision,
            recalibration_images=self.recalibration_images,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def differences(self, other: "StudyIdentity") -> list[str]:
        """One line for each field in which `other` differs; `rungs` only if nothing else does."""
        lines: list[str] = []
        for name in sorted((one.name for one in fields(self)), key=DERIVED.__contains__):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name in DERIVED and lines:
                continue
            if name == "weights" and self.weights_checksum == other.weights_checksum is not None:
                continue  # the same, wherever they lie
            if name == "recipe":
                mine, theirs = asdict(mine), asdict(theirs)
                if self.teacher_checksum == other.teacher_checksum is not None:
                    theirs["teacher"] = mine["teacher"]
            if name in ("switches", "recipe"):
                keys = sorted(
                    {key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)}
                )
                lines += [f"{key} is {mine.get(key)}, not {theirs.get(key)}" for key in keys]
            elif mine != theirs:
                lines.append(f"{name} is {_shown(mine)}, not {_shown(theirs)}")
        return lines


def identity_of(study: optuna.Study) -> StudyIdentity | None:
    """The identity stored with `study`; None if the study is not one of ours."""
    stored = study.user_attrs.get(IDENTITY_KEY)
    if stored is None:
        return None
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise VersionError(
            f"the study '{study.study_name}' was written by another version of bnvit-study "
            f"(schema {stored.get('schema_version')}, not {SCHEMA_VERSION}); use that version"
        )
    values = {key: _hashable(value) for key, value in stored.items()}
    values["switches"] = asdict(stored_switches(stored["model"], stored["switches"]))
    values["recipe"] = stored_recipe(stored["recipe"])
    values["others"] = tuple(
        Searched(**{**one, "choices": tuple(one["choices"])}) for one in stored.get("others", ())
    )
    return StudyIdentity(**values)  # as `as_dict` wrote them


def _hashable(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(_hashable(part) for part in value) if isinstance(value, list) else value


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    separator = ", " if any(isinstance(part, tuple) for part in value) else ":"
    return separator.join(_shown(part) for part in value)
