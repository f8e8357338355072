"""A study that is killed or stopped in its middle and run again: nothing lost, nothing twice."""

import signal
import time
from pathlib import Path

import mlflow
import psutil
from mlflow.entities import Run

from study.embedded import EmbeddedPostgres
from study.mlflow_tracker import MlflowTracker
from study.settings import Settings
from study.storage import open_store
from study.studies import show_study
from tests.integration.processes import (
    STUDY,
    finish,
    show,
    start_run,
    until,
    wait_until_said,
    words_of,
)


def trial_runs(data_dir: Path) -> list[tuple[Run, dict[str, list[int]]]]:
    """MLflow's runs of the study's trials, with the steps of each metric."""
    with EmbeddedPostgres(data_dir / "postgres") as server:
        client = mlflow.MlflowClient(tracking_uri=server.url("mlflow"))
        experiment = client.get_experiment_by_name(STUDY)
        assert experiment is not None
        runs = [
            run
            for run in client.search_runs([experiment.experiment_id])
            if "trial_key" in run.data.tags
        ]
        told = []
        for run in runs:
            histories = {
                name: [point.step for point in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            told.append((run, histories))
        MlflowTracker(server.url("mlflow")).disconnect()  # MLflow shares its engine
    return told


def assert_exactly(trials: int, data_dir: Path) -> None:
    """As many trials and as many runs, every rung once on both sides."""
    seen = show(data_dir)
    assert len(seen["trials"]) == trials
    assert set(seen["outcomes"]) <= {"complete", "pruned", "diverged"}
    runs = trial_runs(data_dir)
    assert len(runs) == trials
    assert len({run.data.tags["trial_key"] for run, _ in runs}) == trials
    for run, histories in runs:
        row = seen["trials"][int(run.data.tags["trial_number"])]
        assert run.data.tags["outcome"] == row["outcome"]
        assert run.info.status == "FINISHED"
        assert sorted(histories["epoch"]) == row["rungs"]
        for steps in histories.values():  # throughput is absent where all steps were warm-up
            assert set(steps) <= set(row["rungs"])
            assert len(set(steps)) == len(steps)


def test_sigkill_in_mid_study_then_the_same_command_again(made_dir: Path) -> None:
    command = "--trials 6 --epochs 1 --pruner none"
    process = start_run(command, made_dir)
    wait_until_said(process, "trial 1:")
    process.kill()
    process.communicate()
    code, out, err = finish(start_run(command, made_dir), timeout_s=240)
    assert code == 0, err
    assert "6 trials: " in out
    assert_exactly(6, made_dir)
    again = finish(start_run(command, made_dir))
    assert again[0] == 0
    assert "all 6 trials have ended already" in again[1]


def test_ctrl_c_puts_the_trial_back_and_the_next_run_goes_on(made_dir: Path) -> None:
    command = "--trials 2 --epochs 16"
    process = start_run(command, made_dir)
    wait_until_said(process, "workers:")  # it has made the study
    with open_store(Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)) as store:
        until(lambda: any(row.rungs for row in show_study(store, STUDY).trials))
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process, timeout_s=30)
    assert code == 130, err
    assert "waiting" in out
    assert "go on: " in out
    seen = show(made_dir)
    assert seen["trials"][0]["outcome"] == "waiting"
    assert seen["trials"][0]["rungs"]
    code, out, err = finish(start_run(command, made_dir), timeout_s=240)
    assert code == 0, err
    assert "goes on from" in err
    assert_exactly(2, made_dir)


def workers_of(run: int) -> list[psutil.Process]:
    """Its local workers, by its process id."""
    children = psutil.Process(run).children(recursive=True)
    return [child for child in children if "worker" in words_of(child)]


def test_a_local_worker_that_somebody_tells_to_leave_is_replaced(made_dir: Path) -> None:
    process = start_run("--trials 2 --epochs 8", made_dir)
    wait_until_said(process, "trial 0: ")
    (worker,) = workers_of(process.pid)
    assert words_of(worker)[:2] == ["bnvit-study", "worker"]  # forked from the run
    worker.send_signal(signal.SIGTERM)
    (other,) = until(lambda: [it for it in workers_of(process.pid) if it != worker])
    assert words_of(other)[1:4] == ["-P", "-m", "study.entry"]  # started from nothing
    code, _, err = finish(process, timeout_s=240)
    assert code == 0, err
    assert err.count("a worker was told to leave; another takes its place") == 1
    assert_exactly(2, made_dir)


def test_ctrl_c_twice_ends_at_once_and_leaves_no_server(made_dir: Path) -> None:
    process = start_run("--trials 2 --epochs 500", made_dir)
    wait_until_said(process, "trial 0: ")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # two at once would arrive as one
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process, timeout_s=30)
    assert code == 130
    *warnings, last = err.splitlines() or ["bnvit-study: stopped at once"]  # all was done already
    assert last == "bnvit-study: stopped at once"
    assert all("they wait in" in line or "it is killed" in line for line in warnings)
    alive = [
        found
        for found in psutil.process_iter(["cmdline", "status"])
        if str(made_dir) in " ".join(found.info["cmdline"] or [])
        and found.info["status"] != psutil.STATUS_ZOMBIE
    ]
    assert alive == []


def test_four_runs_started_at_once_on_an_empty_folder_share_the_study(data_dir: Path) -> None:
    command = "--trials 8 --epochs 1 --train-images 300"
    processes = [start_run(command, data_dir) for _ in range(4)]
    for process in processes:
        code, out, err = finish(process, timeout_s=240)
        assert code == 0, err
        assert "8 trials: " in out
    assert_exactly(8, data_dir)
