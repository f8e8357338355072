"""The space that a study searches: learning rate, batch size, other fields; its first points."""

import math
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from models.errors import InputError
from models.registry import Variant
from objectives.searched import Searched, Value

HIGHEST_LR = 1e30  # float32 ends at 3e38
START_POINTS = 4  # space-filling, before the sampler has anything to learn from


@dataclass(frozen=True)
class SearchSpace:
    """Inclusive ranges; the learning rate is searched on a logarithmic scale."""

    lr: tuple[float, float] = (1e-5, 1e-2)
    batch_size: tuple[int, int] = (20, 120)
    seeds: tuple[int, int] | None = None  # None: all trials have the study's
    others: tuple[Searched, ...] = ()  # fields of the recipe, switches of the model

    def check(self, variant: Variant) -> None:
        """Raise InputError where a range cannot be searched with this model."""
        low, high = self.lr
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high):
            raise InputError(f"lr range {low:g}:{high:g} must be positive, the lower end first")
        if high > HIGHEST_LR:
            raise InputError(f"lr range {low:g}:{high:g} must end at {HIGHEST_LR:g} or below")
        first, last = self.batch_size
        least = 2 if variant.uses_batch_norm else 1
        if first > last:
            raise InputError(f"batch-size range {first}:{last} is reversed; write {last}:{first}")
        if first < least:
            reason = " (BatchNorm needs two images)" if least == 2 else ""
            raise InputError(f"batch-size range {first}:{last} must start at {least}{reason}")

    def check_fits(self, train_images: int) -> None:
        """Raise InputError where a batch would not fit into the train split."""
        first, last = self.batch_size
        if last > train_images:
            raise InputError(
                f"batch-size range {first}:{last} exceeds the {train_images} training images"
            )

    def distributions(self) -> dict[str, BaseDistribution]:
        """The searched values, as Optuna describes them."""
        found: dict[str, BaseDistribution] = {
            "lr": FloatDistribution(*self.lr, log=True),
            "batch_size": IntDistribution(*self.batch_size),
        }
        if self.seeds is not None:
            found["seed"] = IntDistribution(*self.seeds)
        return found | {one.name: one.distribution() for one in self.others}

    def suggest(self, trial: optuna.Trial) -> dict[str, Value]:
        """Values for `trial`: those it has already, else the sampler's."""
        found: dict[str, Value] = {
            "lr": trial.suggest_float("lr", *self.lr, log=True),
            "batch_size": trial.suggest_int("batch_size", *self.batch_size),
        }
        if self.seeds is not None:
            found["seed"] = trial.suggest_int("seed", *self.seeds)
        return found | {one.name: one.suggest(trial) for one in self.others}

    def starts(self, seed: int) -> list[dict[str, Value]]:
        """The first points, spread evenly over the space (scrambled Sobol sequence)."""
        from scipy.stats import qmc  # takes half a second, and only a new study needs it

        dimensions = 2 + len(self.others)
        points = qmc.Sobol(d=dimensions, scramble=True, rng=seed).random(START_POINTS)
        low, high = (math.log(end) for end in self.lr)
        first, last = self.batch_size
        return [
            {
                "lr": min(max(math.exp(low + u * (high - low)), self.lr[0]), self.lr[1]),
                "batch_size": first + min(int(v * (last - first + 1)), last - first),
                **{one.name: one.at(share) for one, share in zip(self.others, rest, strict=True)},
            }
            for u, v, *rest in points.tolist()
        ]


def article_space(model: str) -> SearchSpace:
    """The article's unequal spaces: ViT's learning rate ends at 1e-3, the BN models' at 1e-2."""
    return SearchSpace(lr=(1e-5, 1e-3 if model == "vit" else 1e-2))
