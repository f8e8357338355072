"""Fits and sweeps: given values, several seeds, the test images at the end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from safetensors.torch import load_file

from models.errors import InputError
from objectives import objective, starting
from objectives.data import load_search_data, load_test
from objectives.datasets import dataset
from objectives.measuring import measure_test
from objectives.training import train as training
from study.errors import IdentityError
from study.experiment_requests import fit_of_study, planned, sweep_of
from study.overview import Overview
from study.plan import COMPUTED, CURVE, TEST, Plan
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.storage import Store
from study.studies import find_study, show_study
from tests.conftest import CPU, SUBSET, TINY
from tests.study.conftest import train

Search = Callable[..., Session]

GRID = ((1e-3, 50), (3e-3, 50))
SWEEP = Plan("sweep", GRID, seeds=2, trained_on="train")


@pytest.fixture
def swept(small: Request) -> Request:
    """Two learning rates with two seeds each, on few images."""
    return planned(replace(small, train_images=200, seed=7), SWEEP)


@pytest.fixture(scope="module")
def done(settings: Settings, store: Store) -> Session:
    """Such a sweep that has ended, for all tests that only look at it."""
    assert store.engine is not None  # it is the one that the session joins
    base = Request("vitbn", TINY, SUBSET, epochs=1, device="cpu", study="done", seed=7)
    with open_session(
        planned(replace(base, train_images=200), SWEEP), settings, lambda _: None
    ) as session:
        train(session)
    return session


def values(seen: Overview) -> list[tuple[float | None, int | None, int | None]]:
    return [(row.lr, row.batch_size, row.seed) for row in seen.trials if row.outcome == "complete"]


def attributes(store: Store, name: str) -> list[dict[str, Any]]:
    return [trial.user_attrs for trial in find_study(store, name).get_trials()]


def mlflow_runs(store: Store, name: str) -> list[Run]:
    """The runs of trials, by number."""
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.trial_number != ''")
    return sorted(found, key=lambda run: int(run.data.tags["trial_number"]))


def test_a_sweep_trains_each_value_once_with_each_seed(store: Store, done: Session) -> None:
    seen = show_study(store, done.study.study_name)
    assert values(seen) == [(lr, size, seed) for seed in (7, 8) for lr, size in GRID]
    assert [row.suggested_by for row in seen.trials] == ["plan"] * 4
    assert all(row.rungs == (200,) for row in seen.trials)
    accuracies = [row.val_accuracy for row in seen.trials]
    assert len(set(accuracies)) > 1  # other seeds and rates give other results


def test_the_test_images_are_read_once_at_the_end_and_told_to_all(
    store: Store, done: Session
) -> None:
    name = done.study.study_name
    told, recorded = attributes(store, name), mlflow_runs(store, name)
    assert len(told) == len(recorded) == 4
    for attrs, run in zip(told, recorded, strict=True):
        assert run.data.metrics["test_accuracy"] == attrs[TEST]["test_accuracy"]
        assert attrs[TEST]["test_images"] == 500
        assert attrs[COMPUTED]["blocks_executed"] == 2
        assert [rung["rung"] for rung in attrs[CURVE]] == [200]
        assert run.data.params["seed"] == str(attrs_seed(store, name, run))
        parent = run.data.tags["mlflow.parentRunId"]
        assert parent == recorded[0].data.tags["mlflow.parentRunId"]


def attrs_seed(store: Store, name: str, run: Run) -> int:
    number = int(run.data.tags["trial_number"])
    return int(find_study(store, name).get_trials()[number].params["seed"])


def test_a_trial_is_what_a_run_of_its_seed_gives(store: Store, done: Session) -> None:
    config = done.identity.config({"lr": 3e-3, "batch_size": 50, "seed": 8})
    source = dataset(SUBSET, done.settings.data_dir)
    run = starting.start(config, load_search_data(source).limited(200), CPU)
    list(training(run))
    expected = measure_test(run, load_test(source, run.data.train))
    told = attributes(store, done.study.study_name)[3][TEST]
    assert told["test_accuracy"] == pytest.approx(expected.test_accuracy)
    assert told["test_loss"] == pytest.approx(expected.test_loss)


def test_more_seeds_are_added_and_what_is_there_stays(
    store: Store, swept: Request, search: Search
) -> None:
    search(swept)
    before = show_study(store, swept.study_name).trials
    search(planned(swept, replace(SWEEP, seeds=3)))
    after = show_study(store, swept.study_name)
    assert after.trials[:4] == before
    assert values(after)[4:] == [(lr, size, 9) for lr, size in GRID]


def test_what_failed_is_trained_again_with_its_own_values(
    store: Store, swept: Request, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, calls = objective.tested, []

    def fail_once(*args: Any) -> objective.Result:
        calls.append(args)
        if len(calls) == 2:
            raise ValueError("a bug")
        return tested(*args)

    monkeypatch.setattr(objective, "tested", fail_once)
    search(swept)
    seen = show_study(store, swept.study_name)
    assert seen.outcomes == {"complete": 4, "failed": 1}
    assert set(values(seen)) == {(lr, size, seed) for seed in (7, 8) for lr, size in GRID}


def test_trained_on_all_images_there_is_no_validation(
    store: Store, swept: Request, search: Search
) -> None:
    joined = planned(swept, replace(SWEEP, trained_on="train+val"))
    session = search(joined)
    seen = show_study(store, joined.study_name)
    assert session.identity.train_images == 200 + 83
    assert session.identity.validation_images == 0
    assert all(row.val_accuracy is None and row.test_accuracy is not None for row in seen.trials)
    for run, attrs in zip(
        mlflow_runs(store, joined.study_name), attributes(store, joined.study_name), strict=True
    ):
        assert "val_accuracy" not in run.data.metrics
        assert "train_loss" in run.data.metrics
        assert set(attrs[CURVE][0]) >= {"train_loss", "train_time_s", "grad_norm"}
    trial = find_study(store, joined.study_name).get_trials()[1]
    assert trial.value == seen.trials[1].test_accuracy


def test_no_weights_are_chosen_by_test_accuracy(
    store: Store, swept: Request, search: Search
) -> None:
    joined = planned(swept, replace(SWEEP, trained_on="train+val", seeds=3))
    search(joined)
    kept = ["has_weights" in run.data.tags for run in mlflow_runs(store, joined.study_name)]
    assert kept == [True] + [False] * 5


def test_a_fit_takes_the_best_values_of_a_search(
    store: Store, small: Request, search: Search, settings: Settings
) -> None:
    search(small, trials=3, epochs=1)
    seen = show_study(store, small.study_name)
    plan = Plan("fit", ((0.0, 0),), seeds=2, trained_on="train+val")
    blank = Request(model="vit", epochs=2, seed=1, device="cpu")
    request = fit_of_study(seen, blank, plan)
    assert request.study_name == f"{small.study_name}-fit"
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    assert seen.best is not None
    fitted = show_study(store, request.study_name)
    best = (seen.best.lr, seen.best.batch_size)
    assert values(fitted) == [(*best, 1), (*best, 2)]
    assert fitted.identity.switches == seen.identity.switches
    assert fitted.identity.train_images == 917 + 83
    (run, _) = mlflow_runs(store, request.study_name)
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    weights = load_file(client.download_artifacts(run.info.run_id, "model.safetensors"))
    assert weights["mlp_head.weight"].shape == (10, 16)
    assert request.command().startswith(
        f"bnvit-study fit {small.study_name} --seeds 2 --on train+val --epochs 2"
    )


def test_a_fit_is_refused_where_the_search_cannot_say_what_is_best(
    store: Store, small: Request, settings: Settings, done: Session
) -> None:
    plan = Plan("fit", ((0.0, 0),), seeds=2, trained_on="train")
    with open_session(small, settings, lambda _: None):
        pass
    with pytest.raises(InputError, match="has 4 trials left; let it end first"):
        fit_of_study(show_study(store, small.study_name), small, plan)
    with pytest.raises(InputError, match="is a sweep, no search"):
        fit_of_study(show_study(store, done.study.study_name), small, plan)


def test_a_sweep_of_other_values_is_refused_with_the_command_that_works(
    swept: Request, done: Session, settings: Settings
) -> None:
    other = replace(swept, study=done.study.study_name)
    other = planned(other, replace(SWEEP, configurations=((1e-3, 60),)))
    with (
        pytest.raises(
            IdentityError, match=r"configurations is 0\.001:50, 0\.003:50, not 0\.001:60"
        ),
        open_session(other, settings, lambda _: None),
    ):
        pass


def test_models_of_a_sweep_are_studies_of_their_own(small: Request) -> None:
    request = replace(small, study=None, switches=None)
    vit, vitbn = sweep_of(request, ["vit", "vitbn"], SWEEP)
    assert (vit.study_name, vitbn.study_name) == (
        "mnist-subset-vit-sweep",
        "mnist-subset-vitbn-sweep",
    )
    assert vit.command() == vitbn.command()
    assert "--models vit,vitbn --lr 0.001,0.003 --batch-size 50 --seeds 2" in vit.command()
    named, _ = sweep_of(replace(request, study="mine"), ["vit", "vitbn"], SWEEP)
    assert named.study_name == "mine-vit"
    assert named.command().count("--study mine") == 1
    with pytest.raises(InputError, match="names a model twice"):
        sweep_of(request, ["vit", "vit"], SWEEP)
