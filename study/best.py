"""Which trial of a study is the best, asked where its weights are to be kept."""

import optuna

from study.attempt import best_rank
from study.spool_line import Line
from study.storage import Store


def is_best(store: Store, line: Line) -> bool:
    """Whether the ended trial of a spooled line is the best of its study."""
    study = optuna.load_study(study_name=line.study, storage=store.storage)
    assert line.number is not None
    return best_rank(study)[1] == -line.number
