"""Runs whose values are given beforehand: each configuration once with each seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.errors import InputError
from objectives.outcome import Outcome
from objectives.search_space import SearchSpace

Kind = Literal["search", "fit", "sweep", "stability"]
TrainedOn = Literal["train", "train+val"]

Configuration = tuple[float, int]  # learning rate and batch size
Values = dict[str, Any]  # of a trial's parameters, by name


@dataclass(frozen=True)
class Slot:
    """A trial that counts towards the study's total."""

    values: Values  # that it was made with
    outcome: Outcome | None = None  # None: it has not ended
    accuracy: float | None = None  # that Optuna was told; of one that diverged, that of guessing


Held = Callable[[], list[Slot]]

PLANNED_EPOCHS = 30  # unless another number is asked for; the article's
MOST_SEEDS = 1_000
MOST_CONFIGURATIONS = 1_000

# Attributes of a trial.
TEST = "test"  # of a planned one: a `TestMetrics`
CURVE = "curve"  # of a planned one: its `RungMetrics`
COMPUTED = "computed"  # on what and how it was computed, and what was executed


@dataclass(frozen=True)
class Plan:
    """What a fit or a sweep is to train."""

    kind: Kind
    configurations: tuple[Configuration, ...]
    seeds: int  # the study's total, from its seed on
    trained_on: TrainedOn
    source: str | None = None  # the study whose best configuration it is
    source_trials: int = 0  # that it was the best of
    models: tuple[str, ...] = ()  # that the same command trains, where there are several
    prefix: str | None = None  # of their studies' names; None: the data set
    usual_epochs: int = PLANNED_EPOCHS

    def check(self) -> None:
        """Raise InputError where there is nothing to train, or too much."""
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"seeds {self.seeds} must be from 1 to {MOST_SEEDS:,}")
        if not 1 <= len(self.configurations) <= MOST_CONFIGURATIONS:
            raise InputError(
                f"{len(self.configurations)} configurations; between 1 and "
                f"{MOST_CONFIGURATIONS:,} can be trained"
            )
        if len(set(self.configurations)) < len(self.configurations):
            raise InputError("a learning rate or batch size is given twice; give each once")

    @property
    def identity_fields(self) -> dict[str, Any]:
        """What a study's identity keeps of it, beside its ranges."""
        names = ("kind", "configurations", "trained_on")
        return {name: getattr(self, name) for name in names}

    @property
    def runs(self) -> int:
        """How many trials that makes."""
        return len(self.configurations) * self.seeds

    def words(self, model: str) -> list[str]:
        """The command that asks for it, as far as it is about what to train."""
        rates = dict.fromkeys(repr(lr) for lr, _ in self.configurations)
        sizes = dict.fromkeys(str(size) for _, size in self.configurations)
        words = ["bnvit-study", self.kind]
        if self.source is not None:
            words += [self.source]
        else:
            words += ["--models" if self.kind == "sweep" else "--model"]
            words += [",".join(self.models) or model]
            words += ["--lr", ",".join(rates), "--batch-size", ",".join(sizes)]
        words += ["--seeds", str(self.seeds), "--on", self.trained_on]
        return words if self.prefix is None else [*words, "--study", self.prefix]

    @property
    def space(self) -> SearchSpace:
        """The ranges that its values lie in."""
        rates, sizes = zip(*self.configurations, strict=True)
        return SearchSpace((min(rates), max(rates)), (min(sizes), max(sizes)))


def planned_values(
    configurations: Sequence[Configuration], seed: int, numbers: range, held: Held
) -> list[Values]:
    """Values for new slots: the first that no slot holds, all configurations of a seed together.

    So an interrupted plan has as many seeds of each as it could; `seed` is the first.
    """
    taken = {tuple(sorted(slot.values.items())) for slot in held()}
    found: list[Values] = []
    while len(found) < len(numbers):
        for lr, batch_size in configurations:
            values = {"lr": lr, "batch_size": batch_size, "seed": seed}
            if tuple(sorted(values.items())) not in taken and len(found) < len(numbers):
                found.append(values)
        seed += 1
    return found
