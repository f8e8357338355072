"""What became of a study: counted in Optuna, in MLflow, and against undisturbed training."""

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.metrics import RungMetrics
from objectives.starting import start
from objectives.training import train
from study.best import is_best
from study.identity import StudyIdentity, identity_of
from study.replay import spool_folder, sync
from study.settings import Settings
from study.storage import Store, open_store
from study.studies import find_study, runs_of
from study.tracking import open_tracker

COUNTED = ("complete", "pruned", "diverged", "oom")


@dataclass
class Verdict:
    """Counts of one study; all but `ended`, `failed` and `rungs` should be 0."""

    ended: int = 0
    failed: int = 0  # given up after three killed workers, and replaced
    rungs: int = 0
    lost: int = 0  # trials short of the total
    surplus: int = 0
    open: int = 0  # neither ended nor failed
    duplicate_numbers: int = 0
    missing_runs: int = 0
    duplicate_runs: int = 0
    missing_rungs: int = 0  # in MLflow, of those in Optuna
    duplicate_rungs: int = 0
    wrong_values: int = 0  # in MLflow, of a rung's accuracy
    wrong_outcomes: int = 0
    different_curves: int = 0  # from the same configuration trained undisturbed
    traces: int = 0  # of errors that nobody expected, in what the processes said
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, int]:
        """What is not as it should be."""
        innocent = ("ended", "failed", "rungs")
        return {
            name: value
            for name, value in asdict(self).items()
            if name != "notes" and name not in innocent and value
        }


def judge(settings: Settings, spools: list[Settings], study: str, trials: int) -> Verdict:
    """Look at `study`, which was to have so many trials; what nodes' spools hold comes first."""
    with open_store(settings) as store:
        for node in spools:  # workers that were killed for good
            folder = spool_folder(node.spool_dir, store, str(node.mlflow_uri))
            sync(folder, store, str(node.mlflow_uri), partial(is_best, store))
        verdict = Verdict()
        found = find_study(store, study)
        identity = identity_of(found)
        assert identity is not None
        seen = found.get_trials()
        _count(verdict, seen, trials)
        _compare_with_mlflow(verdict, store, settings, study, seen)
        _compare_with_undisturbed(verdict, identity, settings, seen)
    return verdict


def _count(verdict: Verdict, seen: list[FrozenTrial], trials: int) -> None:
    ended = [trial for trial in seen if trial.user_attrs.get("outcome") in COUNTED]
    verdict.ended = len(ended)
    verdict.failed = sum(trial.state == TrialState.FAIL for trial in seen)
    verdict.lost = max(trials - len(ended), 0)
    verdict.surplus = max(len(ended) - trials, 0)
    verdict.open = sum(not trial.state.is_finished() for trial in seen)
    verdict.duplicate_numbers = len(seen) - len({trial.number for trial in seen})
    verdict.rungs = sum(len(trial.intermediate_values) for trial in seen)


def _compare_with_mlflow(
    verdict: Verdict, store: Store, settings: Settings, study: str, seen: list[FrozenTrial]
) -> None:
    tracker = open_tracker(str(settings.mlflow_uri))
    records = tracker.curves(runs_of(find_study(store, study)))
    tracker.disconnect()
    for trial in seen:
        record = records.get(trial.number)
        if record is None:
            verdict.missing_runs += 1
            continue
        verdict.duplicate_runs += len(record.other_run_ids)
        if trial.state == TrialState.FAIL:
            continue  # its last rungs may be in the spool of a worker that it killed
        verdict.wrong_outcomes += record.outcome != trial.user_attrs["outcome"]
        for rung in trial.intermediate_values.keys() | record.val_accuracy.keys():
            recorded = record.val_accuracy.get(rung, [])
            times = len(recorded)
            told = trial.intermediate_values.get(rung)
            verdict.wrong_values += any(value != told for value in recorded)
            verdict.missing_rungs += times == 0
            verdict.duplicate_rungs += max(times - 1, 0)
            if times != 1:
                verdict.notes.append(f"trial {trial.number}, rung {rung}: {times} times")


def _compare_with_undisturbed(
    verdict: Verdict, identity: StudyIdentity, settings: Settings, seen: list[FrozenTrial]
) -> None:
    """Train each configuration again, in one go, as far as its trial went."""
    source = dataset(identity.dataset, settings.data_dir)
    data = load_search_data(source).limited(identity.train_images)
    torch.set_num_threads(1)
    for trial in seen:
        if not trial.intermediate_values:
            continue
        curve = _undisturbed(identity, data, trial.params, len(trial.intermediate_values))
        if curve != trial.intermediate_values:
            verdict.different_curves += 1
            verdict.notes.append(f"trial {trial.number}: {trial.intermediate_values} not {curve}")


def _undisturbed(
    identity: StudyIdentity, data: SearchData, params: dict[str, Any], rungs: int
) -> dict[int, float]:
    config = identity.config(params)
    curve: dict[int, float] = {}
    for event in train(start(config, data, torch.device("cpu"))):
        if isinstance(event, RungMetrics):
            curve[event.rung] = event.val_accuracy
        if len(curve) == rungs:
            break
    return curve
