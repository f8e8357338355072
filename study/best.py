"""Which trial of a study is the best, asked where its weights are to be kept."""

import optuna
from optuna.trial import TrialState

from objectives.outcome import Outcome
from study.identity import identity_of
from study.spool_line import Line
from study.storage import Store


def is_best(store: Store, line: Line) -> bool:
    """Whether the ended trial of a spooled line is the best of its study."""
    study = optuna.load_study(study_name=line.study, storage=store.storage)
    assert line.number is not None
    return best_rank(study)[1] == -line.number


def rank(study: optuna.Study, value: float, number: int) -> tuple[float, int]:
    """Orders the trials of `study`: by value, of equal ones the first.

    Where the value is an accuracy on the test images nothing may be chosen by it, and the first
    trial is as good as any.
    """
    identity = identity_of(study)
    return (0.0 if identity is not None and identity.is_joined else value), -number


def best_rank(study: optuna.Study) -> tuple[float, int]:
    """The rank of the best trial."""
    ranks = [
        rank(study, trial.value, trial.number)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("outcome") == Outcome.COMPLETE and trial.value is not None
    ]
    return max(ranks, default=(-1.0, 1))
