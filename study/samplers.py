"""Optuna's samplers and pruners, as a study names them."""

import numpy as np
import optuna

from objectives.recipe import REDUCTION_FACTOR
from objectives.search_space import START_POINTS
from study.identity import StudyIdentity


def sampler(identity: StudyIdentity, trial_number: int) -> optuna.samplers.BaseSampler:
    """The study's sampler for one trial, seeded by study seed and trial number.

    Workers that share a seed would otherwise all suggest the same first points.
    """
    seed = int(np.random.SeedSequence([identity.seed, trial_number]).generate_state(1)[0])
    if identity.sampler == "tpe":
        return optuna.samplers.TPESampler(
            n_startup_trials=START_POINTS, multivariate=True, constant_liar=True, seed=seed
        )
    if identity.sampler == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=START_POINTS, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def pruner(identity: StudyIdentity) -> optuna.pruners.BasePruner:
    """The study's pruner, acting on its rungs."""
    if identity.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=identity.rungs[0], reduction_factor=REDUCTION_FACTOR
        )
    if identity.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=START_POINTS)
    return optuna.pruners.NopPruner()
