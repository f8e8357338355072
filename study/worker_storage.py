"""Optuna's storage as a worker needs it: trials are looked up at once and written at once.

What Optuna tells of the trial that the worker holds is kept in memory until it is written in one
transaction, behind the fence of the trial's lease: 2 ms instead of 2 ms and three statements for
each value.
"""

import copy
import json
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, TableClause, func
from sqlalchemy.dialects.postgresql import insert

from study.picture import Picture
from study.schema import (
    intermediate_values,
    params,
    system_attributes,
    trials,
    user_attributes,
)
from study.schema import values as objective_values
from study.storage import Store

_KEYS = {  # of the tables of a trial's values
    params: ("trial_id", "param_name"),
    user_attributes: ("trial_id", "key"),
    system_attributes: ("trial_id", "key"),
    intermediate_values: ("trial_id", "step"),
    objective_values: ("trial_id", "objective"),
}

_Rows = dict[TableClause, dict[str, dict[str, Any]]]  # by table and name of the value


class WorkerStorage(BaseStorage):
    """One study and one trial of it at a time; not for several threads."""

    def __init__(
        self, store: Store, study_id: int, distributions: dict[str, BaseDistribution]
    ) -> None:
        self.picture = Picture(store.engine, study_id, distributions)
        self._rdb = store.storage
        self._trial: FrozenTrial | None = None  # that the worker holds
        self._unwritten: _Rows = {}

    def take_up(self, trial_id: int) -> None:
        """From now on this trial is held; what was not written of another is dropped."""
        self._unwritten = {}
        self._trial = self._rdb.get_trial(trial_id)

    def write(self, connection: Connection) -> None:
        """Write what is new; once the transaction has passed, call `forget`.

        May be repeated. An end of the trial is written only if it has not ended.
        """
        for table, rows in self._unwritten.items():
            new = insert(table)
            names = [name for name in next(iter(rows.values())) if name not in _KEYS[table]]
            again = new.on_conflict_do_update(
                index_elements=list(_KEYS[table]),
                set_={name: new.excluded[name] for name in names},
            )
            connection.execute(again, list(rows.values()))
        if self._unwritten and self._held.state.is_finished():
            connection.execute(
                trials.update()
                .where(trials.c.trial_id == self._held._trial_id)
                .where(trials.c.state == TrialState.RUNNING)
                .values(state=self._held.state, datetime_complete=func.timezone("UTC", func.now()))
            )

    def forget(self) -> None:
        """All that is new has been written."""
        self._unwritten = {}

    @property
    def _held(self) -> FrozenTrial:
        assert self._trial is not None, "no trial was taken up"
        return self._trial

    def _tell(self, table: TableClause, trial_id: int, name: str, **columns: Any) -> None:
        assert trial_id == self._held._trial_id, "another trial is held"
        row = {"trial_id": trial_id, **columns}
        self._unwritten.setdefault(table, {})[name] = row

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
            params,
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
            intermediate_values,
            trial_id,
            str(step),
            step=step,
            intermediate_value=intermediate_value,
            intermediate_value_type="FINITE",
        )
        told = {**self._held.intermediate_values, step: intermediate_value}
        self._change(intermediate_values=told)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._tell(user_attributes, trial_id, key, key=key, value_json=json.dumps(value))
        self._change(user_attrs={**self._held.user_attrs, key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._tell(system_attributes, trial_id, key, key=key, value_json=json.dumps(value))
        self._change(system_attrs={**self._held.system_attrs, key: value})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        for objective, value in enumerate(values or ()):
            told = {"objective": objective, "value": value, "value_type": "FINITE"}
            self._tell(objective_values, trial_id, str(objective), **told)
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
