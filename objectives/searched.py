"""A field of a recipe, or a switch of the model, that a study searches: its name and its range."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from models.errors import InputError
from models.switches import nearest
from objectives.recipes import choices

Value = Any  # a float, an int or a str


@dataclass(frozen=True)
class Searched:
    """An inclusive range, or choices, of one field."""

    name: str
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False
    choices: tuple[str, ...] = ()  # instead of a range

    def __str__(self) -> str:
        """As on the command line."""
        if self.choices:
            return f"{self.name}={','.join(self.choices)}"
        scale = "log:" if self.is_log else ""
        return f"{self.name}={scale}{self.low:g}:{self.high:g}"

    def distribution(self) -> BaseDistribution:
        """As Optuna describes it."""
        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def corners(self, most: int = 64) -> tuple[Value, ...]:
        """Values by which a range can be checked: all, or the ends where there are too many."""
        if self.choices:
            return self.choices
        if self.is_whole and self.high - self.low < most:
            return tuple(range(int(self.low), int(self.high) + 1))
        return (int(self.low), int(self.high)) if self.is_whole else (self.low, self.high)

    def suggest(self, trial: optuna.Trial) -> Value:
        """The value of `trial`: that it has already, else the sampler's."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.is_whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.is_log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.is_log)

    def at(self, share: float) -> Value:
        """The value that lies at `share` in [0, 1) of it."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        if self.is_whole and not self.is_log:
            return int(self.low + math.floor(share * (self.high - self.low + 1)))
        if not self.is_log:
            return self.low + share * (self.high - self.low)
        value = self.low * (self.high / self.low) ** share
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else value


def searched(text: str, kinds: Mapping[str, object]) -> Searched:
    """What `NAME=[log:]LOW:HIGH` or `NAME=A,B,…` says of a field whose types are `kinds`.

    Raises InputError.
    """
    name, equals, range_ = text.partition("=")
    if not equals:
        raise InputError(f"--search {text} must be NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=A,B")
    if name not in kinds:
        raise InputError(f"--search: unknown field '{name}'{nearest(name, list(kinds))}")
    if known := choices(kinds[name]):
        return Searched(name, choices=_chosen(name, range_, known))
    is_log = range_.startswith("log:")
    try:
        low, high = (float(part) for part in range_.removeprefix("log:").split(":"))
    except ValueError:
        raise InputError(f"--search {text} must be LOW:HIGH, two numbers") from None
    parts = (kinds[name], *get_args(kinds[name]))
    is_whole = int in parts
    if not is_whole and float not in parts:
        raise InputError(f"--search: {name} is no number and has no known choices")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"--search {text}: the lower end must come first")
    if is_log and low <= 0:
        raise InputError(f"--search {text}: a logarithmic range must be positive")
    if is_whole and not (low.is_integer() and high.is_integer()):
        raise InputError(f"--search {text}: {name} is a whole number")
    return Searched(name, low, high, is_log, is_whole)


def _chosen(name: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    given = tuple(text.split(","))
    if unknown := [one for one in given if one not in known]:
        raise InputError(f"--search {name}: '{unknown[0]}' is not one of {', '.join(known)}")
    if len(set(given)) < max(len(given), 2):
        raise InputError(f"--search {name} needs two different choices at least")
    return given
