"""Which trials of a study keep their weights on their MLflow runs: the best, or each trained one.

No part of what a study is: a rerun may say otherwise, for trials that end from then on.
"""

import json
from typing import Literal

import optuna
from sqlalchemy import column, select, table

from study.storage import Store

Keep = Literal["best", "all"]

KEEP_KEY = "bnvit:keep_weights"  # attribute of a study; without it: "best"

# Optuna's.
_study_attributes = table(
    "study_user_attributes", column("study_id"), column("key"), column("value_json")
)


def note_keeping(study: optuna.Study, asked: Keep | None) -> None:
    """Have trials of `study` that end from now on keep their weights so; None: as before."""
    if asked is not None:
        study.set_user_attr(KEEP_KEY, asked)


def keeps_all(store: Store, study_id: int) -> bool:
    """Whether each trial that is trained to its end keeps its weights; false of a deleted study.

    Asked anew each time, as a worker may be older than the wish.
    """
    query = (
        select(_study_attributes.c.value_json)
        .where(_study_attributes.c.study_id == study_id)
        .where(_study_attributes.c.key == KEEP_KEY)
    )
    with store.at_once.connect() as connection:
        return connection.scalar(query) == json.dumps("all")
