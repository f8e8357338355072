"""Trials of the past, written in bulk: what workers would have left in the store by now."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, Table, func, insert, select
from store_objective import accuracy

from objectives.objective import PRUNED_AT
from objectives.recipe import REDUCTION_FACTOR
from objectives.search_space import SearchSpace
from study.leases import NOBODY
from study.schema import leases, system_attributes, trials, user_attributes
from study.storage import Store

SPACE = SearchSpace()


@dataclass(frozen=True)
class Past:
    """A trial that has ended."""

    number: int
    lr: float
    batch_size: int
    curve: dict[int, float]  # accuracy by rung

    def state(self, rungs: tuple[int, ...]) -> TrialState:
        """How it ended."""
        return TrialState.COMPLETE if rungs[-1] in self.curve else TrialState.PRUNED


def write_history(store: Store, study: optuna.Study, rungs: tuple[int, ...], count: int) -> None:
    """Put `count` ended trials into the empty `study`."""
    past = list(_simulated(rungs, count))
    if not past:
        return
    now = func.timezone("UTC", func.now())
    with store.engine.begin() as connection:
        rows = [
            {"study_id": study._study_id, "number": p.number, "state": p.state(rungs)} for p in past
        ]
        connection.execute(trials.insert().values(datetime_start=now, datetime_complete=now), rows)
        found = select(trials.c.number, trials.c.trial_id).where(
            trials.c.study_id == study._study_id
        )
        ids = {row[0]: row[1] for row in connection.execute(found)}
        _write_values(connection, past, ids)
        _write_attributes(connection, past, ids, rungs)
        connection.execute(
            leases.insert().values(attempt=1, worker=NOBODY, expires_at=func.now()),
            [{"trial_id": trial_id} for trial_id in ids.values()],
        )
        connection.exec_driver_sql("ANALYZE")


def _simulated(rungs: tuple[int, ...], count: int) -> Iterator[Past]:
    """Random configurations under successive halving."""
    chance = random.Random(0)
    reached: list[list[float]] = [[] for _ in rungs]
    for number in range(count):
        lr = 10 ** chance.uniform(-5, -2)
        batch_size = chance.randint(*SPACE.batch_size)
        curve: dict[int, float] = {}
        for rung, values in zip(rungs, reached, strict=True):
            curve[rung] = accuracy(lr, batch_size, rung / rungs[-1])
            values.append(curve[rung])
            best = sorted(values)[-max(len(values) // REDUCTION_FACTOR, 1)]
            if curve[rung] < best:
                break
        yield Past(number, lr, batch_size, curve)


def _write_values(connection: Connection, past: list[Past], ids: dict[int, int]) -> None:
    kinds = {name: distribution_to_json(kind) for name, kind in SPACE.distributions().items()}
    params = [
        {
            "trial_id": ids[p.number],
            "param_name": name,
            "param_value": float(getattr(p, name)),
            "distribution_json": kinds[name],
        }
        for p in past
        for name in ("lr", "batch_size")
    ]
    connection.execute(insert(_table(models.TrialParamModel)), params)
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    curves = [
        {
            "trial_id": ids[p.number],
            "step": rung,
            "intermediate_value": value,
            "intermediate_value_type": finite,
        }
        for p in past
        for rung, value in p.curve.items()
    ]
    connection.execute(insert(_table(models.TrialIntermediateValueModel)), curves)
    values = [
        {
            "trial_id": ids[p.number],
            "objective": 0,
            "value": p.curve[max(p.curve)],
            "value_type": models.TrialValueModel.TrialValueType.FINITE,
        }
        for p in past
    ]
    connection.execute(insert(_table(models.TrialValueModel)), values)


def _write_attributes(
    connection: Connection, past: list[Past], ids: dict[int, int], rungs: tuple[int, ...]
) -> None:
    system, user = [], []
    for p in past:
        values = {"lr": p.lr, "batch_size": p.batch_size}
        is_complete = p.state(rungs) is TrialState.COMPLETE
        told = {
            "fixed_params": values,
            "tpe:relative_params:0": json.dumps(values),
            "constraints:finite": -1.0,
            "constraints:memory": -1.0,
        }
        asked = [rung for rung in p.curve if rung != rungs[-1]]  # no question at the last
        told |= {f"completed_rung_{i}": p.curve[rung] for i, rung in enumerate(asked)}
        noted = {
            "outcome": "complete" if is_complete else "pruned",
            "images_seen": max(p.curve),
            "visible_trials": {"finished": f"0-{p.number}", "running": ""},
            "suggested_by": "tpe",
        }
        if not is_complete:
            noted[PRUNED_AT] = max(p.curve)
        system += [_attribute(ids[p.number], key, value) for key, value in told.items()]
        user += [_attribute(ids[p.number], key, value) for key, value in noted.items()]
    connection.execute(system_attributes.insert(), system)
    connection.execute(user_attributes.insert(), user)


def _attribute(trial_id: int, key: str, value: object) -> dict[str, object]:
    return {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _table(model: type[models.BaseModel]) -> Table:
    table: Table = model.__table__
    return table
