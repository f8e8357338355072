"""Plain Optuna: `study.optimize` in several processes, timed, with the same objective."""

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import optuna
from optuna.storages import RDBStorage
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState
from store_meter import Meter, Span
from store_objective import accuracy

from objectives.recipe import REDUCTION_FACTOR
from objectives.search_space import SearchSpace


def work(
    url: str,
    name: str,
    trials: int,
    rungs: tuple[int, ...],
    sleep_s: float,
    limit_s: float | None,
    meter: Meter,
    wait_for_all: Callable[[], None],
) -> None:
    """Work on the study `name` as Optuna's documentation shows for several processes."""
    study = optuna.load_study(
        study_name=name,
        storage=RDBStorage(url),
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True),
        pruner=optuna.pruners.SuccessiveHalvingPruner(rungs[0], REDUCTION_FACTOR),
    )
    ask = study.ask
    finishing: list[Span] = []

    def timed_ask(*arguments: Any) -> optuna.Trial:
        with meter.measuring("claim"):
            return ask(*arguments)

    def sleep_and_report(trial: optuna.Trial) -> float:
        with meter.measuring("sample"):
            values = SearchSpace().suggest(trial)
        for rung in rungs:
            time.sleep(sleep_s)
            value = accuracy(values["lr"], int(values["batch_size"]), rung / rungs[-1])
            with meter.measuring("report"):
                trial.report(value, rung)
                is_pruned = rung < rungs[-1] and trial.should_prune()
            finishing[:] = [meter.start()]
            if is_pruned:
                raise optuna.TrialPruned
        return value

    def note_end(_study: optuna.Study, _trial: FrozenTrial) -> None:
        meter.stop("finish", finishing[0])

    enough = MaxTrialsCallback(trials, (TrialState.COMPLETE, TrialState.PRUNED))
    wait_for_all()
    with patch.object(study, "ask", timed_ask):
        study.optimize(sleep_and_report, timeout=limit_s, callbacks=[enough, note_end])
