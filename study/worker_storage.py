"""Optuna's storage as a worker needs it: trials are looked up at once and written at once.

What Optuna tells of the trial that the worker holds is kept in memory until it is written by one
statement, behind the fence of the trial's lease. Optuna's own storage makes three statements and a
commit of each value.
"""

import copy
import json
from collections.abc import Container, Sequence
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError

from study import leases
from study.leases import Claim, LeaseLostError
from study.picture import Picture
from study.storage import Store

# The tables that hold a trial's values: the key beside the trial, and the other columns. Their
# names and types are part of Optuna's versioned schema.
_TABLES = {
    "trial_params": ("param_name text", "param_value float8, distribution_json text"),
    "trial_user_attributes": ("key text", "value_json text"),
    "trial_system_attributes": ("key text", "value_json text"),
    "trial_intermediate_values": (
        "step int",
        "intermediate_value float8, intermediate_value_type trialintermediatevaluetype",
    ),
    "trial_values": ("objective int", "value float8, value_type trialvaluetype"),
}

# An end of a trial is written only if it has not ended.
_END = """
    UPDATE trials SET state = CAST(:state AS trialstate), datetime_complete = timezone('UTC', now())
    WHERE trial_id = (SELECT trial_id FROM fence) AND state = 'RUNNING'
"""

_Row = dict[str, str | float]


class WorkerStorage(BaseStorage):
    """One study and one trial of it at a time; not for several threads."""

    def __init__(
        self, store: Store, study_id: int, distributions: dict[str, BaseDistribution]
    ) -> None:
        self.picture = Picture(store.at_once, study_id, distributions)
        self._store = store
        self._rdb = store.storage
        self._trial: FrozenTrial | None = None  # that the worker holds
        self._unwritten: dict[str, dict[str, _Row]] = {}  # by table and name of the value

    def take_up(self, trial_id: int) -> None:
        """From now on this trial is held; what was not written of another is dropped.

        Looks at the study. Raises KeyError where there is no such trial.
        """
        self._unwritten = {}
        self._trial = self.picture.take_up(trial_id)

    def write(self, claim: Claim, images_seen: int, images_saved: int) -> None:
        """Write what is new, in one statement that extends the lease; may be repeated.

        Raises LeaseLostError where another worker has the trial, or its study was deleted.
        """
        asked = leases.extension(self._store, claim, images_seen, images_saved)
        asked |= {table: json.dumps(list(rows.values())) for table, rows in self._unwritten.items()}
        has_ended = self._held.state.is_finished()
        if has_ended:
            asked["state"] = self._held.state.name
        statement = _writing(tuple(self._unwritten), has_ended)
        try:
            with self._store.at_once.connect() as connection:
                is_ours = connection.execute(statement, asked).first() is not None
        except IntegrityError as error:  # the trial is no more
            raise LeaseLostError from error
        if not is_ours:
            raise LeaseLostError
        self._unwritten = {}

    @property
    def _held(self) -> FrozenTrial:
        assert self._trial is not None, "no trial was taken up"
        return self._trial

    def _tell(self, table: str, trial_id: int, name: str, **columns: str | float) -> None:
        assert trial_id == self._held._trial_id, "another trial is held"
        self._unwritten.setdefault(table, {})[name] = columns

    def _change(self, **fields: Any) -> None:
        """The held trial changes; those who were given it keep what they were given."""
        self._trial = copy.copy(self._held)
        for name, value in fields.items():
            setattr(self._trial, name, value)

    # What a trial is told.

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        self._tell(
            "trial_params",
            trial_id,
            param_name,
            param_name=param_name,
            param_value=param_value_internal,
            distribution_json=distribution_to_json(distribution),
        )
        value = distribution.to_external_repr(param_value_internal)
        self._change(
            params={**self._held.params, param_name: value},
            distributions={**self._held.distributions, param_name: distribution},
        )

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._tell(
            "trial_intermediate_values",
            trial_id,
            str(step),
            step=step,
            intermediate_value=intermediate_value,
            intermediate_value_type="FINITE",
        )
        told = {**self._held.intermediate_values, step: intermediate_value}
        self._change(intermediate_values=told)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._tell("trial_user_attributes", trial_id, key, key=key, value_json=json.dumps(value))
        self._change(user_attrs={**self._held.user_attrs, key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._tell("trial_system_attributes", trial_id, key, key=key, value_json=json.dumps(value))
        self._change(system_attrs={**self._held.system_attrs, key: value})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        for objective, value in enumerate(values or ()):
            self._tell(
                "trial_values",
                trial_id,
                str(objective),
                objective=objective,
                value=value,
                value_type="FINITE",
            )
        self._change(state=state, values=None if values is None else list(values))
        return True

    # What is asked of trials.

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._trial is not None and self._trial._trial_id == trial_id:
            return self._trial
        return self._rdb.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        seen = self.picture.look()
        found = seen if states is None else [trial for trial in seen if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    # The rest is Optuna's.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._rdb.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._rdb.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._rdb.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._rdb.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._rdb.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._rdb.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._rdb.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._rdb.create_new_trial(study_id, template_trial)


@cache
def _writing(tables: tuple[str, ...], has_ended: bool) -> TextClause:
    """The statement that writes to `tables`, and the trial's end, if the lease is still held."""
    parts = [f"fence AS ({leases.EXTEND} RETURNING trial_id)"]
    parts += [f"new_{table} AS ({_upsert(table)})" for table in tables]
    parts += [f"trial_end AS ({_END})"] if has_ended else []
    return text(f"WITH {', '.join(parts)} SELECT trial_id FROM fence")


def _upsert(table: str) -> str:
    key, others = _TABLES[table]
    key_name, *names = (column.split()[0] for column in [key, *others.split(", ")])
    return f"""
        INSERT INTO {table} (trial_id, {", ".join([key_name, *names])})
        SELECT fence.trial_id, new.*
        FROM fence, json_to_recordset(CAST(:{table} AS json)) AS new ({key}, {others})
        ON CONFLICT (trial_id, {key_name})
        DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in names)}
    """
