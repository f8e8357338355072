"""A study recorded by an MLflow server over http, as a team shares one."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.integration.processes import STUDY, finish, run_study, show, start_run
from tests.integration.servers import MlflowServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of an MLflow server with its own database and its own place for artifacts."""
    with MlflowServer(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as made:
        yield made.uri


def test_a_server_given_on_the_command_line_keeps_runs_and_only_the_best_weights(
    server: str, data_dir: Path
) -> None:
    command = f"--trials 6 --epochs 1 --pruner none --mlflow {server}"
    run_study(command, data_dir)
    told = show(data_dir)
    client = mlflow.MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    weights = {}
    for row in told["trials"]:
        run = client.get_run(row["mlflow_run_id"])
        assert run.data.tags["outcome"] == "complete"
        assert run.data.metrics["val_accuracy"] == row["val_accuracy"]
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        weights[row["number"]] = "model.safetensors" in files
    accuracies = [row["val_accuracy"] for row in told["trials"]]
    assert accuracies.index(max(accuracies)) > 0, "the first trial is best: none replaced it"
    assert [number for number, kept in weights.items() if kept] == [told["best"]["number"]]
    code, out, err = finish(start_run(command, data_dir))
    assert (code, err) == (0, "")
    assert f"--mlflow {server}" in out
