"""Deleting a study, with all that is kept of it, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from sqlalchemy import func, select

from models.errors import InputError
from study import removal
from study.docket import active_studies, open_checkpoints
from study.errors import UnknownStudyError
from study.removal import find_removable, remove
from study.request import Request
from study.schema import leases
from study.service import Session
from study.settings import Settings
from study.slots import claim
from study.storage import Store
from study.studies import CHECKPOINTS_KEY, runs_of, show_study
from tests.study.made import Made, make_study

Search = Callable[..., Session]


@pytest.fixture
def made(store: Store, request: pytest.FixtureRequest) -> Made:
    """A study named after the test, with two trials that have ended."""
    made = make_study(store, request.node.name.replace("[", "-").replace("]", ""))
    for _ in range(2):
        made.lease(made.trial(), "gone", left_s=20)  # it ended a moment ago
    return made


def leases_of(store: Store, ids: list[int]) -> int:
    with store.engine.connect() as connection:
        query = select(func.count()).where(leases.c.trial_id.in_(ids))
        return int(connection.execute(query).scalar_one())


def names(store: Store) -> list[str]:
    return optuna.get_all_study_names(store.storage)


def test_a_study_is_deleted_with_its_experiment_and_its_checkpoints(
    store: Store, settings: Settings, small: Request, search: Search
) -> None:
    others = search(small, study="kept", trials=1)
    study = search(small, trials=2).study
    seen = show_study(store, study.study_name)
    ids = [trial._trial_id for trial in study.get_trials()]
    checkpoint = settings.data_dir / "checkpoints" / seen.uuid / "trial-0" / "x.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    kept = settings.data_dir / "checkpoints" / "another"
    kept.mkdir()
    lines = remove(store, settings, find_removable(store, study.study_name))
    runs = runs_of(others.study)
    assert runs is not None
    assert study.study_name not in names(store)
    assert leases_of(store, ids) == 0
    assert (checkpoint.parent.parent.exists(), kept.exists()) == (False, True)
    client = MlflowClient(store.mlflow_url)
    (gone,) = (
        experiment
        for experiment in client.search_experiments(view_type=2)
        if experiment.tags.get("study_uuid") == seen.uuid
    )
    assert gone.lifecycle_stage == "deleted"
    assert client.get_experiment(runs.experiment_id).lifecycle_stage == "active"
    assert lines == [
        f"MLflow: experiment {gone.experiment_id} deleted; it can be restored until 'mlflow gc'",
        "checkpoints: deleted",
        f"study '{study.study_name}': deleted with 2 trials",
    ]
    again = search(small, trials=2).study  # of the same name, with an experiment of its own
    assert len(again.get_trials()) == 2


def test_a_study_in_training_is_not_deleted(store: Store, settings: Settings, made: Made) -> None:
    name = made.study.study_name
    found = find_removable(store, name)
    made.lease(made.trial("running"), "alive")
    with pytest.raises(InputError, match=rf"1 trial of '{name}' is running: stop it first with"):
        remove(store, settings, found)  # taken up since it was found
    made.lease(made.trial("running"), "alive")
    with pytest.raises(
        InputError, match=rf"2 trials of .* are running.* 'bnvit-study stop {name}'"
    ):
        find_removable(store, name)
    assert show_study(store, name).outcomes == {"complete": 2, "running": 2}
    assert leases_of(store, [trial._trial_id for trial in made.study.get_trials()]) == 4


def test_open_trials_without_a_living_worker_are_no_hindrance(
    store: Store, settings: Settings, made: Made
) -> None:
    ids = [made.trial("running"), made.trial("waiting", ())]
    made.lease(ids[0], "dead", left_s=-1)
    lines = remove(store, settings, find_removable(store, made.study.study_name))
    assert lines[-1] == f"study '{made.study.study_name}': deleted with 4 trials"
    assert leases_of(store, ids) == 0
    assert made.study.study_name not in names(store)


def test_what_was_interrupted_can_be_repeated_and_nobody_takes_a_trial_meanwhile(
    store: Store, settings: Settings, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.lease(made.trial("running"), "dead", left_s=-1)
    found = find_removable(store, made.study.study_name)
    with monkeypatch.context() as patch:
        patch.setattr("optuna.delete_study", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove(store, settings, found)
    assert claim(store, made.study, "newcomer") is None
    assert made.study.study_name not in active_studies(store).values()
    remove(store, settings, find_removable(store, made.study.study_name))
    assert made.study.study_name not in names(store)


def _interrupted(**_: object) -> None:
    raise KeyboardInterrupt


def test_trials_of_other_studies_stay(store: Store, settings: Settings, made: Made) -> None:
    other = make_study(store, f"{made.study.study_name} other")
    trial_id = other.trial()
    other.lease(trial_id, "w")
    remove(store, settings, find_removable(store, made.study.study_name))
    assert len(show_study(store, other.study.study_name).ended) == 1
    assert leases_of(store, [trial_id]) == 1


def test_what_is_not_ours_is_refused(store: Store) -> None:
    foreign = optuna.create_study(study_name="not to be removed", storage=store.storage)
    with pytest.raises(UnknownStudyError, match="was not made by bnvit-study"):
        find_removable(store, foreign.study_name)
    with pytest.raises(UnknownStudyError, match="did you mean 'not to be removed'"):
        find_removable(store, "not to be remove")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("none", "tracking is off"),
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 does not answer"),
        ("sqlite:///{folder}/other.db", "it is not in this MLflow"),
    ],
)
def test_an_experiment_that_cannot_be_deleted_is_named(
    store: Store,
    settings: Settings,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    reason: str,
) -> None:
    monkeypatch.setattr(removal, "CHECKPOINTS_TIMEOUT_S", 0.5)
    made.study.set_user_attr("mlflow_experiment_id", "0")
    made.study.set_user_attr("mlflow_parent_run_id", "p")
    there = settings.model_copy(update={"mlflow_uri": uri.format(folder=tmp_path)})
    line, checkpoints, _ = remove(store, there, find_removable(store, made.study.study_name))
    assert ("could not be deleted" in checkpoints) is uri.startswith("http")
    assert line.startswith("MLflow: experiment 0 was not deleted")
    assert reason in line
    assert line.endswith("delete it there with: mlflow experiments delete -x 0")
    assert made.study.study_name not in names(store)


def test_an_unreadable_address_deletes_nothing(
    store: Store, settings: Settings, made: Made
) -> None:
    found = find_removable(store, made.study.study_name)
    with pytest.raises(InputError, match="MLflow URI"):
        remove(store, settings.model_copy(update={"mlflow_uri": "ftp://x"}), found)
    assert not made.study.user_attrs.get("bnvit:stop")


def test_copies_of_checkpoints_for_other_nodes_are_deleted(
    store: Store, settings: Settings, made: Made, tmp_path: Path
) -> None:
    made.study.set_user_attr(CHECKPOINTS_KEY, tmp_path.as_uri())
    checkpoints = open_checkpoints(made.study, settings, None)
    checkpoints.save(0, {"step": 1}, 114)
    assert checkpoints.flush(10)
    checkpoints.close()
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    remove(store, settings, find_removable(store, made.study.study_name))
    assert list(tmp_path.rglob("*.pt")) == []
