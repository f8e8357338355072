"""Which trial of a study is the best, asked where its weights are to be kept."""

import optuna
from optuna.trial import TrialState

from objectives.outcome import Outcome
from study.spool_line import Line
from study.storage import Store


def is_best(store: Store, line: Line) -> bool:
    """Whether the ended trial of a spooled line is the best of its study."""
    study = optuna.load_study(study_name=line.study, storage=store.storage)
    assert line.number is not None
    return best_rank(study)[1] == -line.number


def best_rank(study: optuna.Study) -> tuple[float, int]:
    """Value and negative number of the best trial, of equal ones the first."""
    ranks = [
        (trial.value, -trial.number)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("outcome") == Outcome.COMPLETE and trial.value is not None
    ]
    return max(ranks, default=(-1.0, 1))
