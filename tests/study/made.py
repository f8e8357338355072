"""Studies, trials and workers made by hand, in states that would take long to reach."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from objectives.data import load_search_data
from objectives.datasets import dataset
from study.creation import create_or_resume, identify
from study.request import Request
from study.slots import TOTAL_KEY
from study.storage import Store
from tests.conftest import SUBSET, TINY

RUNGS = (114, 458, 917)  # of one epoch of the subset
STATES = {
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.WAITING,
}
_SPACE = {"lr": FloatDistribution(1e-5, 1e-2, log=True), "batch_size": IntDistribution(20, 120)}


@dataclass
class Made:
    """A study of the subset."""

    store: Store
    study: optuna.Study

    def trial(
        self,
        outcome: str = "complete",
        values: tuple[float, ...] = (0.25, 0.5, 0.75),
        began_s_ago: float = 60,
        took_s: float = 30,
        **attrs: Any,
    ) -> int:
        """Add a trial with these accuracies at its rungs; returns its id."""
        state = STATES.get(outcome, TrialState.COMPLETE)
        trial = create_trial(
            state=state,
            value=values[-1] if state == TrialState.COMPLETE else None,
            params={"lr": 0.00123456789012, "batch_size": 50},
            distributions=_SPACE,
            intermediate_values=dict(zip(RUNGS, values, strict=False)),
            user_attrs={"images_seen": RUNGS[len(values) - 1]} | attrs,
        )
        if state.is_finished():
            trial.user_attrs["outcome"] = outcome
        trial.datetime_start = began = datetime.now() - timedelta(seconds=began_s_ago)
        trial.datetime_complete = began + timedelta(seconds=took_s) if state.is_finished() else None
        storage = self.store.storage
        return storage.create_new_trial(self.study._study_id, trial)

    def lease(self, trial_id: int, worker: str, left_s: float = 30, images_seen: int = 200) -> None:
        """Give a trial's lease to a worker, for `left_s` more seconds."""
        self._execute(
            "INSERT INTO bnvit.lease (trial_id, attempt, crashes, worker, expires_at, images_seen)"
            "VALUES (:id, 2, 0, :worker, now() + :left * interval '1 second', :images)",
            id=trial_id,
            worker=worker,
            left=left_s,
            images=images_seen,
        )

    def worker(self, name: str, silent_s: float = 0, torch: str = "2.11") -> None:
        """Sign a worker on that was last heard of `silent_s` ago."""
        self._execute(
            "INSERT INTO bnvit.worker (name, node, pid, device, versions, clock_ahead_s, seen_at)"
            "VALUES (:name, 'node', 7, 'cuda:0 (NVIDIA H100 80GB HBM3)',"
            " jsonb_build_object('torch', CAST(:torch AS text)), 0.01,"
            " now() - :silent * interval '1 second')",
            name=name,
            silent=silent_s,
            torch=torch,
        )

    def sign_off(self) -> None:
        """Remove all workers."""
        self._execute("DELETE FROM bnvit.worker")

    def _execute(self, statement: str, **values: Any) -> None:
        with self.store.engine.begin() as connection:
            connection.execute(text(statement), values)


def make_study(store: Store, name: str, total: int = 4) -> Made:
    """A study that is to have `total` trials and has none yet."""
    request = Request(model="vitbn", switches=TINY, dataset=SUBSET, epochs=1, study=name)
    data = load_search_data(dataset(SUBSET, Path()))
    study, is_new = create_or_resume(store, identify(request, data), request)
    assert is_new
    study.set_user_attr(TOTAL_KEY, total)
    return Made(store, study)
