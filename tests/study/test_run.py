"""A study from its creation to its end, in one process, on real Postgres and MLflow."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path

import mlflow
import optuna
import pytest
import torch
from mlflow.entities import Run, ViewType
from optuna.trial import TrialState
from rich.console import Console
from safetensors.torch import load_file

from models.errors import InputError
from models.registry import variant
from objectives import run as runs
from objectives import starting
from objectives.compiling import CACHE_VARIABLE
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.metrics import Diverged, RungMetrics
from objectives.recipe import TrainConfig
from objectives.search_space import SearchSpace
from objectives.searched import Searched
from study import service
from study.checkpoints import Checkpoints
from study.errors import IdentityError, TrackingError, UnknownStudyError, WorkerError
from study.overview import Overview, overview
from study.recorder import TrialRecorder
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.stop import Stop
from study.storage import Store
from study.studies import show_study
from study.tables import trials_table
from tests.conftest import SUBSET, TINY
from tests.study.conftest import train

Search = Callable[..., Session]

METRICS = {
    "images_seen",
    "epoch",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_accuracy_running_stats",
    "val_top5_accuracy",
    "grad_norm",
    "train_time_s",
    "val_time_s",
    "train_images_per_s",
    "statistics_lag",
    "peak_memory_bytes",
}


def seen_in(store: Store, request: Request) -> Overview:
    return show_study(store, request.study_name)


def mlflow_runs(store: Store, seen: Overview) -> list[Run]:
    """The runs of a study's trials."""
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    experiment = client.get_experiment_by_name(seen.study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    return [run for run in runs if "trial_key" in run.data.tags]


def test_a_study_ends_with_exactly_its_trials(store: Store, small: Request, search: Search) -> None:
    search(small, trials=6)
    seen = seen_in(store, small)
    assert len(seen.trials) == len(seen.ended) == 6
    assert set(seen.outcomes) <= {"complete", "pruned"}
    assert [row.suggested_by for row in seen.trials] == ["start"] * 4 + ["tpe"] * 2
    assert seen.model_based == 2
    assert seen.best is not None
    assert seen.best.rungs == seen.identity.rungs


def test_compiled_code_of_all_processes_lies_in_the_data_folder(
    small: Request, search: Search, settings: Settings
) -> None:
    """Also where the run is the first to touch torch's compiler, as it asks whether that pays."""
    search(replace(small, study="compiled-code", compile="auto", trials=1))
    assert os.environ[CACHE_VARIABLE] == str(settings.data_dir / "compiled")


def test_the_trials_fit_a_terminal_of_80_columns(
    store: Store, small: Request, search: Search
) -> None:
    search(small)
    seen = seen_in(store, small)
    console = Console(width=80, file=StringIO(), record=True)
    console.print(trials_table(seen))
    text = console.export_text()
    assert "…" not in text
    for row in seen.trials:
        assert f"{row.lr:.2e}" in text


def test_start_points_of_a_large_study_only_scout(
    store: Store, small: Request, search: Search
) -> None:
    search(small, trials=12)
    seen = seen_in(store, small)
    first = seen.identity.rungs[:1]
    assert [(row.outcome, row.rungs) for row in seen.trials[:4]] == [("pruned", first)] * 4
    assert any(len(row.rungs) > 1 for row in seen.trials[4:])
    assert seen.model_based == 8


def test_every_trial_has_one_mlflow_run_with_every_rung_once(
    store: Store, small: Request, search: Search, tmp_path: Path
) -> None:
    search(small)
    seen = seen_in(store, small)
    runs = mlflow_runs(store, seen)
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    assert sorted(int(run.data.tags["trial_number"]) for run in runs) == [0, 1, 2, 3]
    for run in runs:
        row = seen.trials[int(run.data.tags["trial_number"])]
        assert run.data.tags["trial_key"] == f"{seen.uuid}/{row.number}"
        assert run.data.tags["outcome"] == row.outcome
        assert run.data.tags["optuna_state"] == row.state
        assert run.info.status == "FINISHED"
        assert row.mlflow_run_id == run.info.run_id
        assert set(run.data.metrics) | {"train_images_per_s"} == METRICS
        for name in METRICS - {"train_images_per_s"}:  # absent where all steps were warm-up
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert sorted(steps) == list(row.rungs)
        assert float(run.data.params["lr"]) == row.lr
        assert run.data.params["blocks_executed"] == "2"
        assert run.data.params["versions.torch"] == torch.__version__
        config = json.loads(artifact_text(client, run, "config.json", tmp_path))
        assert config["batch_size"] == row.batch_size


def artifact_text(client: mlflow.MlflowClient, run: Run, name: str, folder: Path) -> str:
    return Path(client.download_artifacts(run.info.run_id, name, str(folder))).read_text()


def test_only_the_best_trial_keeps_its_weights_and_they_score_as_reported(
    store: Store, small: Request, search: Search, subset: SearchData, tmp_path: Path
) -> None:
    search(small, pruner="none", trials=5)
    seen = seen_in(store, small)
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    holders = {
        run.info.run_id
        for run in mlflow_runs(store, seen)
        if "model.safetensors" in {file.path for file in client.list_artifacts(run.info.run_id)}
    }
    assert seen.best is not None
    assert holders == {seen.best.mlflow_run_id}
    run_id = str(seen.best.mlflow_run_id)
    path = client.download_artifacts(run_id, "model.safetensors", str(tmp_path))
    model = variant("vitbn").build(subset.shape, small.switches)
    model.load_state_dict(load_file(path))
    assert evaluate(model, subset.validation, 50).accuracy == seen.best.val_accuracy


def test_a_finished_study_is_left_alone_and_grows_on_request(
    store: Store, small: Request, search: Search
) -> None:
    search(small, trials=2)
    before = seen_in(store, small).trials
    search(small, trials=2)
    assert seen_in(store, small).trials == before
    search(small, trials=5)
    after = seen_in(store, small).trials
    assert len(after) == 5
    assert after[:2] == before


def test_a_smaller_total_withdraws_slots_that_nobody_has_claimed(
    store: Store, small: Request, settings: Settings, search: Search
) -> None:
    with service.open_session(replace(small, trials=9), settings, lambda _: None):
        pass  # slots made, none claimed
    search(small, trials=3)
    seen = seen_in(store, small)
    assert [row.number for row in seen.trials] == [0, 1, 2]
    assert len(seen.ended) == 3
    search(small, trials=4)
    assert len(seen_in(store, small).ended) == 4


def test_an_interrupted_trial_goes_on_from_its_slot_with_the_same_numbers(
    store: Store,
    small: Request,
    settings: Settings,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = replace(small, trials=1, epochs=4)
    reference = replace(one, study=f"{one.study}-undisturbed")
    search(reference)
    stop = Stop()
    with (
        monkeypatch.context() as patch,
        service.open_session(one, settings, lambda _: None) as session,
    ):
        _stop_at_rung(patch, stop, 1)
        train(session, stop)
    interrupted = seen_in(store, one).trials[0]
    assert (interrupted.outcome, interrupted.state) == ("waiting", "WAITING")
    assert len(interrupted.rungs) == 1
    assert mlflow_runs(store, seen_in(store, one))[0].info.status == "SCHEDULED"
    search(one)
    resumed, undisturbed = seen_in(store, one).trials[0], seen_in(store, reference).trials[0]
    assert resumed.attempt == 2
    assert resumed.val_accuracy == undisturbed.val_accuracy
    assert resumed.rungs == undisturbed.rungs
    assert _curve(store, one) == _curve(store, reference)
    assert not list(settings.data_dir.glob(f"checkpoints/{seen_in(store, one).uuid}/*"))


def _stop_at_rung(patch: pytest.MonkeyPatch, stop: Stop, rungs: int) -> None:
    """Ask for a stop once so many rungs have been recorded."""
    record, seen = TrialRecorder.rung, [0]

    def counted(recorder: TrialRecorder, metrics: RungMetrics) -> None:
        record(recorder, metrics)
        seen[0] += 1
        if seen[0] == rungs:
            stop.request(2)

    patch.setattr(TrialRecorder, "rung", counted)


def _curve(store: Store, request: Request) -> list[tuple[int, float, float]]:
    (run,) = mlflow_runs(store, seen_in(store, request))
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    norms = client.get_metric_history(run.info.run_id, "grad_norm")
    return [(a.step, a.value, b.value) for a, b in zip(losses, norms, strict=True)]


def test_divergence_is_a_result_that_the_sampler_hears_of(
    store: Store, small: Request, search: Search
) -> None:
    search(small, space=SearchSpace(lr=(1e12, 1e15)), trials=6)
    seen = seen_in(store, small)
    assert seen.outcomes == {"diverged": 6}
    assert seen.best is None
    study = optuna.load_study(study_name=seen.study, storage=store.storage)
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == pytest.approx(0.1)
        assert trial.constraints == {"finite": 1.0, "memory": -1.0}
        assert set(trial.user_attrs["diverged"]) == set(Diverged.__dataclass_fields__)
    for run in mlflow_runs(store, seen):
        assert json.loads(run.data.tags["diverged"])["step"] >= 1


@pytest.mark.parametrize("sampler", ["gp", "random"])
def test_the_other_samplers_search_too(
    store: Store, small: Request, search: Search, sampler: str
) -> None:
    search(small, sampler=sampler, pruner="none", trials=5)
    seen = seen_in(store, small)
    assert len(seen.ended) == 5
    assert seen.model_based == (1 if sampler == "gp" else 0)


def test_the_median_pruner_prunes_nothing_before_it_has_seen_enough(
    store: Store, small: Request, search: Search
) -> None:
    search(small, pruner="median", trials=5)
    assert len(seen_in(store, small).ended) == 5


def test_a_bug_fails_the_trial_and_repeated_bugs_stop_the_worker(
    store: Store, small: Request, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(starting, "start", broken)
        with pytest.raises(WorkerError, match="3 trials failed"):
            search(small)
    seen = seen_in(store, small)
    assert seen.outcomes["failed"] == 3
    assert seen.trials[0].reason == "ZeroDivisionError: planted"
    search(small)
    seen = seen_in(store, small)
    assert len(seen.ended) == 4
    assert seen.outcomes["failed"] == 3


def test_an_interruption_that_became_an_error_fails_no_trial(
    store: Store, small: Request, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()

    def interrupted(*_: object) -> None:  # as by torch.save, of its half-written file
        stop.at_once = True
        raise RuntimeError("unexpected pos")

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        service.open_session(small, settings, lambda _: None) as session,
    ):
        train(session, stop)
    assert seen_in(store, small).outcomes == {"waiting": 4}


def test_out_of_memory_is_an_outcome_and_the_worker_lives_on(
    store: Store, small: Request, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = starting.start
    tried: list[int] = []

    def greedy(*arguments: object) -> runs.Run:
        tried.append(arguments[0].batch_size)  # type: ignore[attr-defined]
        if tried[-1] > 60:
            torch.empty(1 << 60)  # more than any machine has
        return start(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(starting, "start", greedy)
    search(small, trials=8)
    outcomes = {row.number: row.outcome for row in seen_in(store, small).trials}
    study = optuna.load_study(study_name=small.study_name, storage=store.storage)
    assert "oom" in outcomes.values()
    for trial in study.trials:
        is_large = trial.params["batch_size"] > 60
        assert (outcomes[trial.number] == "oom") == is_large
        assert trial.constraints["memory"] == (1.0 if is_large else -1.0)
    # Nothing as large as what did not fit is tried again.
    too_large = [batch_size for batch_size in tried if batch_size > 60]
    assert too_large == sorted(set(too_large), reverse=True)
    reasons = [trial.user_attrs.get("reason", "") for trial in study.trials]
    assert sum("was not tried" in reason for reason in reasons) == len(study.trials) - len(tried)


def test_a_model_that_did_not_fit_foretells_nothing_of_a_smaller_one(
    store: Store, small: Request, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = starting.start

    def greedy(config: TrainConfig, *rest: object) -> runs.Run:
        if config.switches.depth == 2:
            torch.empty(1 << 60)  # more than any machine has
        return start(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(starting, "start", greedy)
    space = SearchSpace(batch_size=(50, 50), others=(Searched("depth", 1, 2, is_whole=True),))
    search(small, trials=4, space=space, pruner="none")
    ended = {(row.others["depth"], row.outcome) for row in seen_in(store, small).trials}
    assert ended == {(1, "complete"), (2, "oom")}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 2}, "epochs is 1, not 2"),
        ({"seed": 7}, "seed is 0, not 7"),
        ({"sampler": "random"}, "sampler is tpe, not random"),
        ({"train_images": 500}, "train_images is 917, not 500"),
        ({"space": SearchSpace(lr=(1e-4, 1e-2))}, "lr is 1e-05:0.01, not 0.0001:0.01"),
    ],
)
def test_a_study_refuses_to_become_another(
    small: Request, search: Search, changes: dict[str, object], named: str
) -> None:
    search(small, trials=1)
    with pytest.raises(IdentityError, match=named) as refused:
        search(small, trials=1, **changes)
    assert "--fresh" in str(refused.value)


def test_fresh_takes_the_next_free_name(store: Store, small: Request, search: Search) -> None:
    search(small, trials=1)
    session = search(small, trials=1, epochs=2, fresh=True)
    assert session.study.study_name == f"{small.study}-2"
    assert overview(store, session.study) is not None


def test_free_fields_may_change(store: Store, small: Request, search: Search) -> None:
    search(small, trials=1)
    search(small, trials=2, device="auto")
    assert len(seen_in(store, small).ended) == 2


def test_tracking_can_be_off(store: Store, small: Request, settings: Settings) -> None:
    silent = settings.model_copy(update={"mlflow_uri": "none"})
    with service.open_session(small, silent, lambda _: None) as session:
        train(session)
    assert len(seen_in(store, small).ended) == 4


def test_an_absent_mlflow_server_is_one_clear_error_and_nothing_is_created(
    store: Store, small: Request, settings: Settings
) -> None:
    absent = settings.model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    with (
        pytest.raises(TrackingError, match=r"MLflow at http://127.0.0.1:9 does not answer"),
        service.open_session(small, absent, lambda _: None),
    ):
        pass
    assert small.study_name not in optuna.get_all_study_names(store.storage)


def test_a_deleted_experiment_is_told_apart_from_a_missing_one(
    store: Store, small: Request, search: Search
) -> None:
    search(small, trials=1)
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    experiment = client.get_experiment_by_name(small.study_name)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        search(small, trials=2)


def test_two_studies_of_one_name_in_one_mlflow_keep_apart(
    store: Store, small: Request, search: Search
) -> None:
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    client.create_experiment(small.study_name)
    session = search(small, trials=1)
    assert session.runs is not None
    experiment = client.get_experiment(session.runs.experiment_id)
    assert experiment.name == f"{small.study_name}-{session.uuid[:8]}"


def test_a_study_whose_creator_died_before_naming_it_is_taken_up(
    store: Store, small: Request, search: Search
) -> None:
    optuna.create_study(study_name=small.study_name, storage=store.storage, direction="maximize")
    search(small, trials=1)
    assert len(seen_in(store, small).ended) == 1


def test_a_study_that_is_deleted_meanwhile_is_one_clear_error(
    small: Request, settings: Settings
) -> None:
    with service.open_session(small, settings, lambda _: None) as session:
        optuna.delete_study(study_name=small.study_name, storage=session.store.storage)
        for question in (
            session.overview,
            partial(session.tend, None),
            partial(session.close, None),
        ):
            with pytest.raises(UnknownStudyError, match="was deleted meanwhile"):
                question()


def test_a_study_of_somebody_else_is_refused(store: Store, small: Request, search: Search) -> None:
    optuna.create_study(study_name=small.study_name, storage=store.storage)
    with pytest.raises(IdentityError, match="was not made by bnvit-study"):
        search(small)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "vitbm"}, "did you mean 'vitbn'"),
        ({"trials": 0}, "trials 0 must be at least 1"),
        ({"epochs": 0}, "epochs 0 must be at least 1"),
        ({"space": SearchSpace(batch_size=(20, 918))}, "exceeds the 917 training images"),
        ({"space": SearchSpace(batch_size=(1, 20))}, "must start at 2"),
        ({"space": SearchSpace(lr=(1e-2, 1e-5))}, "the lower end first"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"dataset": "mnits"}, "did you mean 'mnist'"),
        ({"sampler": "tpa"}, "unknown sampler"),
        ({"train_images": 1000}, "train images 1000 must lie between 1 and 917"),
    ],
)
def test_bad_input_creates_nothing(
    store: Store, small: Request, search: Search, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        search(small, **changes)
    assert small.study_name not in optuna.get_all_study_names(store.storage)


def test_the_default_name_is_data_set_and_model() -> None:
    assert Request(model="vit").study_name == "mnist-vit"
    assert Request(model="vitbn", dataset=SUBSET).study_name == "mnist-subset-vitbn"


def test_an_overview_is_plain_json(store: Store, small: Request, search: Search) -> None:
    search(small, trials=1)
    told = json.loads(json.dumps(seen_in(store, small).as_dict(), default=str))
    assert told["trials"][0]["outcome"] == "complete"
    assert told["identity"]["switches"] == asdict(replace(TINY, patch_size=7))
