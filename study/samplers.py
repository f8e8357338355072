"""Optuna's samplers and pruners, as a study names them."""

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from objectives.recipe import REDUCTION_FACTOR
from objectives.search_space import START_POINTS
from study.identity import StudyIdentity
from study.slots import TOTAL_KEY

SCOUTED_TRIALS = 3 * START_POINTS  # a study's total from which on its start points only scout


def is_scout(trial_number: int, trials: int) -> bool:
    """Whether a trial of a study of `trials` only scouts: it ends at its first rung."""
    return trials >= SCOUTED_TRIALS and trial_number < START_POINTS


class ScoutingHalvingPruner(optuna.pruners.SuccessiveHalvingPruner):
    """Asynchronous successive halving whose start points only scout: they end at their first rung.

    The first trials of a study have nothing to be compared with, so plain successive halving
    trains them far, though they were chosen to be spread out, not to be good. Studies too small
    to be worth scouting for are left as they are.

    Source: Li et al. 2020, arXiv 1810.05934, as implemented by Optuna; the scouting is ours.
    """

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether `trial` ends at the rung that it has just reported."""
        verdict = super().prune(study, trial)  # records the rung, for others to compare with
        return verdict or (
            trial.number < START_POINTS and is_scout(trial.number, study.user_attrs[TOTAL_KEY])
        )


class _TpeSampler(optuna.samplers.TPESampler):
    """TPE that knows the space, which Optuna would infer anew from all trials at each sample."""

    def __init__(self, space: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(
            n_startup_trials=START_POINTS, multivariate=True, constant_liar=True, seed=seed
        )
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002  # Optuna's signature
        trial: optuna.trial.FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """The space without what has but one value."""
        return self._space


def sampler(identity: StudyIdentity, trial_number: int) -> optuna.samplers.BaseSampler:
    """The study's sampler for one trial, seeded by study seed and trial number.

    Workers that share a seed would otherwise all suggest the same first points.
    """
    seed = int(np.random.SeedSequence([identity.seed, trial_number]).generate_state(1)[0])
    if identity.sampler == "tpe":
        return _TpeSampler(identity.space.distributions(), seed)
    if identity.sampler == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=START_POINTS, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def pruner(identity: StudyIdentity) -> optuna.pruners.BasePruner:
    """The study's pruner, acting on its rungs."""
    if identity.pruner == "asha":
        return ScoutingHalvingPruner(
            min_resource=identity.rungs[0], reduction_factor=REDUCTION_FACTOR
        )
    if identity.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=START_POINTS)
    return optuna.pruners.NopPruner()
