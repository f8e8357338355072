"""One MLflow run per trial, whatever its attempts.

Everything may be told twice, in the same order, without a trace, if whoever tells it holds the
trial's lock. To be imported after `study.mlflow_tracker`, which sets MLflow's environment.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from objectives.outcome import Outcome
from study.mlflow_errors import errors_told
from study.mlflow_runs import keep_weights, log_params, search, set_tags
from study.tracking import StudyRuns, TrialLabel

CONFIG_FILE = "config.json"
TRACEBACK_FILE = "traceback.txt"


class MlflowTrials:
    """The runs of trials; raises as `MlflowTracker` does."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def open(
        self,
        runs: StudyRuns,
        label: TrialLabel,
        attempt: int,
        params: Mapping[str, Any],
        at_ms: int,
    ) -> str:
        """Find or make the trial's run, mark it running, return its id."""
        with errors_told():
            run = self._run(runs, label, at_ms)
            run_id = str(run.info.run_id)
            told = {"outcome": "running", "optuna_state": "RUNNING", "attempt": str(attempt)}
            set_tags(self.client, run_id, told)
            self.client.update_run(run_id, status="RUNNING")
            if CONFIG_FILE not in {file.path for file in self.client.list_artifacts(run_id)}:
                log_params(self.client, run, params)
                self.client.log_dict(run_id, dict(params), CONFIG_FILE)
        return run_id

    def find(self, runs: StudyRuns, label: TrialLabel, at_ms: int) -> str:
        """The id of the trial's run, which is made where it is missing."""
        with errors_told():
            return str(self._run(runs, label, at_ms).info.run_id)

    def log_rung(self, run_id: str, rung: int, values: Mapping[str, float], at_ms: int) -> None:
        """Record one rung under its number, unless it is there. All its metrics or none."""
        with errors_told():
            history = self.client.get_metric_history(run_id, "epoch")
            if rung not in {metric.step for metric in history}:
                metrics = [Metric(key, value, at_ms, rung) for key, value in values.items()]
                self.client.log_batch(run_id, metrics=metrics)

    def put_back(self, run_id: str) -> None:
        """The trial waits again."""
        with errors_told():
            set_tags(self.client, run_id, {"outcome": "waiting", "optuna_state": "WAITING"})
            self.client.update_run(run_id, status="SCHEDULED")

    def close(self, run_id: str, told: Mapping[str, Any], at_ms: int) -> None:
        """Record the outcome and end the run; `told` is what `TrialRecorder.close` keeps."""
        tags = {"outcome": told["outcome"], "optuna_state": told["state"]}
        if told["diverged"] is not None:
            tags["diverged"] = json.dumps(told["diverged"])
        if told["reason"]:
            tags["reason"] = told["reason"]
        status = "FAILED" if told["outcome"] == Outcome.FAILED else "FINISHED"
        with errors_told():
            set_tags(self.client, run_id, tags)
            if told.get("test"):
                self._log_test(run_id, told["test"], told["last"], at_ms)
            if told["traceback"]:
                self.client.log_text(run_id, told["traceback"], TRACEBACK_FILE)
            self.client.set_terminated(run_id, status, at_ms)

    def _log_test(self, run_id: str, test: Mapping[str, float], rung: int, at_ms: int) -> None:
        """Record the metrics of the test images under the last rung, unless they are there."""
        if not self.client.get_metric_history(run_id, "test_accuracy"):
            metrics = [Metric(key, value, at_ms, rung) for key, value in test.items()]
            self.client.log_batch(run_id, metrics=metrics)

    def keep_weights(self, run_id: str, path: Path) -> None:
        """Keep the safetensors file `path` as the trial's weights."""
        with errors_told():
            keep_weights(self.client, run_id, path)

    def _run(self, runs: StudyRuns, label: TrialLabel, at_ms: int) -> Run:
        """Of several, as a request that hung and was repeated may have made, one stays."""
        found = search(self.client, runs.experiment_id, f"tags.trial_key = '{label.key}'")
        if found:
            first, *others = sorted(found, key=_rank)
            for run in others:
                self.client.delete_run(run.info.run_id)
            return first
        tags = {
            "mlflow.parentRunId": runs.parent_run_id,
            "trial_key": label.key,
            "study": label.study,
            "trial_number": str(label.number),
        }
        name = f"{label.study} #{label.number}"
        return self.client.create_run(runs.experiment_id, at_ms, tags, name)


def _rank(run: Run) -> tuple[bool, int, str]:
    """First the run that has most to lose."""
    return not run.data.metrics, int(run.info.start_time), str(run.info.run_id)
