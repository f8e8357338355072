"""What a worker serves, and what it refuses to work on, on real Postgres."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import optuna
import pytest
import torch
from optuna.trial import TrialState

from models.errors import InputError
from objectives.errors import DataError
from study import docket as docket_module
from study import service, slots
from study.docket import Docket, check_checkpoints
from study.errors import DataDifferError, StorageError, UnknownStudyError
from study.identity import IDENTITY_KEY, UUID_KEY
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from study.studies import MLFLOW_KEY, VERSIONS_KEY, find_study, set_stopped
from tests.conftest import CPU, FIXTURES
from tests.integration.servers import MlflowServer
from tests.study.conftest import blank

Search = Callable[..., Session]


@pytest.fixture
def waiting(small: Request, settings: Settings, store: Store) -> Iterator[str]:
    """The name of a study whose trials all wait; afterwards nobody serves it any more."""
    with service.open_session(small, settings, lambda _: None):
        pass
    yield small.study_name
    set_stopped(find_study(store, small.study_name), True)


def docket(store: Store, settings: Settings, *names: str) -> Docket:
    return Docket(store, settings, CPU, names)


def change_identity(store: Store, name: str, **changes: object) -> None:
    study = find_study(store, name)
    study.set_user_attr(IDENTITY_KEY, {**study.user_attrs[IDENTITY_KEY], **changes})


def test_active_studies_are_served_oldest_first(
    store: Store, settings: Settings, small: Request, waiting: str, search: Search
) -> None:
    search(replace(small, study=f"{waiting}-ended", trials=1))
    newer = replace(small, study=f"{waiting}-newer")
    with service.open_session(newer, settings, lambda _: None):
        pass
    names = [job.study.study_name for job in docket(store, settings).jobs()]
    assert [name for name in names if name.startswith(waiting)] == [waiting, f"{waiting}-newer"]
    set_stopped(find_study(store, f"{waiting}-newer"), True)


def test_a_named_study_that_is_stopped_is_done(
    store: Store, settings: Settings, waiting: str
) -> None:
    named = docket(store, settings, waiting)
    assert len(named.jobs()) == 1
    set_stopped(find_study(store, waiting), True)
    assert named.jobs(at_once=True) == []
    assert named.is_done
    assert not docket(store, settings).is_done, "without names there may always be more"


@pytest.mark.parametrize("is_identified", [False, True])
def test_a_named_study_that_is_being_created_is_waited_for(
    store: Store, settings: Settings, small: Request, waiting: str, is_identified: bool
) -> None:
    created = optuna.create_study(
        study_name=f"{waiting}-created", storage=store.storage, direction="maximize"
    )
    if is_identified:
        created.set_user_attr(IDENTITY_KEY, find_study(store, waiting).user_attrs[IDENTITY_KEY])
        created.set_user_attr(UUID_KEY, str(uuid4()))
    named = docket(store, settings, created.study_name)
    assert named.jobs(at_once=True) == []
    assert not named.is_done
    with service.open_session(replace(small, study=created.study_name), settings, lambda _: None):
        (job,) = named.jobs(at_once=True)
    assert job.runs is not None
    assert not named.is_done
    set_stopped(created, True)
    named.jobs(at_once=True)
    assert named.is_done


def test_a_study_that_is_deleted_while_it_is_created_is_done(
    store: Store, settings: Settings
) -> None:
    created = optuna.create_study(storage=store.storage, direction="maximize")
    named = docket(store, settings, created.study_name)
    optuna.delete_study(study_name=created.study_name, storage=store.storage)
    assert named.jobs(at_once=True) == []
    assert named.is_done


def test_an_unknown_study_is_named_with_the_nearest(
    store: Store, settings: Settings, waiting: str
) -> None:
    with pytest.raises(UnknownStudyError, match=f"no study '{waiting}x'.*{waiting}"):
        docket(store, settings, f"{waiting}x")


def test_other_data_than_the_studys_are_refused(
    store: Store, settings: Settings, waiting: str
) -> None:
    change_identity(store, waiting, data_checksum="f" * 64)
    with pytest.raises(DataDifferError, match=r"differ on this node: checksum .* not ffffffffffff"):
        docket(store, settings, waiting)


def test_more_processes_than_a_batch_has_images_are_refused(
    store: Store, settings: Settings, small: Request, waiting: str
) -> None:
    smallest = small.space.batch_size[0]
    assert Docket(store, settings, CPU, [waiting], smallest).jobs()
    with pytest.raises(InputError, match=f"begin at {smallest}, too few images for {smallest + 1}"):
        Docket(store, settings, CPU, [waiting], smallest + 1)


def test_a_study_of_another_schema_version_is_refused(
    store: Store, settings: Settings, waiting: str
) -> None:
    change_identity(store, waiting, schema_version=99)
    with pytest.raises(StorageError, match=r"another version of bnvit-study \(schema 99"):
        docket(store, settings, waiting)


def test_one_who_serves_all_leaves_out_what_it_cannot_and_says_so_once(
    store: Store, settings: Settings, waiting: str, caplog: pytest.LogCaptureFixture
) -> None:
    change_identity(store, waiting, data_checksum="f" * 64)
    everything = docket(store, settings)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            names = [job.study.study_name for job in everything.jobs(at_once=True)]
            assert waiting not in names
    assert caplog.text.count("differ on this node") == 1


def test_what_hindered_work_on_a_study_is_looked_at_again(
    store: Store, settings: Settings, waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "RETRY_S", 3600)
    theirs = find_study(store, waiting).user_attrs[IDENTITY_KEY]["data_checksum"]
    change_identity(store, waiting, data_checksum="f" * 64)
    everything = docket(store, settings)

    def served() -> list[str]:
        return [job.study.study_name for job in everything.jobs(at_once=True)]

    assert waiting not in served()
    change_identity(store, waiting, data_checksum=theirs)
    assert waiting not in served(), "not at once"
    monkeypatch.setattr(docket_module, "RETRY_S", 0)
    assert waiting in served()


def test_a_node_with_another_mlflow_is_refused(
    store: Store, settings: Settings, waiting: str, tmp_path: Path
) -> None:
    with MlflowServer(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as other:
        elsewhere = settings.model_copy(update={"mlflow_uri": other.uri})
        with pytest.raises(InputError, match=r"beside the studies, and MLflow at .* does"):
            docket(store, elsewhere, waiting)
        find_study(store, waiting).set_user_attr(MLFLOW_KEY, "http://begun-with")
        with pytest.raises(InputError, match=r"at http://begun-with, and MLflow at"):
            docket(store, elsewhere, waiting)
        other.kill()
        with pytest.raises(
            InputError, match=r"http://begun-with, and MLflow at .* does not answer"
        ):
            docket(store, elsewhere, waiting)
    with pytest.raises(InputError, match="at http://begun-with; give it here"):
        docket(store, settings, waiting)


def test_another_address_of_the_same_mlflow_will_do(
    store: Store, settings: Settings, waiting: str
) -> None:
    find_study(store, waiting).set_user_attr(MLFLOW_KEY, "http://begun-with")
    same = settings.model_copy(update={"mlflow_uri": store.mlflow_url})
    assert docket(store, same, waiting).jobs()


def test_a_trial_that_runs_is_served_also_beyond_a_lowered_total(
    store: Store, settings: Settings, waiting: str
) -> None:
    study = find_study(store, waiting)
    held = slots.claim(store, study, "w")
    assert held is not None
    slots.fill(store, study, blank, total=0)
    assert slots.remaining(store, study) == 1
    named = docket(store, settings, waiting)
    assert named.jobs()
    store.storage.set_trial_state_values(held.trial_id, TrialState.COMPLETE, [0.5])
    assert slots.remaining(store, study) == 0
    assert named.jobs(at_once=True) == []
    assert named.is_done


def test_other_package_versions_are_told(
    store: Store, settings: Settings, waiting: str, caplog: pytest.LogCaptureFixture
) -> None:
    find_study(store, waiting).set_user_attr(VERSIONS_KEY, {"torch": "1.0", "python": "2.7"})
    with caplog.at_level(logging.WARNING):
        docket(store, settings, waiting)
    assert f"torch {torch.__version__}, not 1.0" in caplog.text


def test_missing_data_are_one_clear_error(
    store: Store, settings: Settings, waiting: str, tmp_path: Path
) -> None:
    change_identity(store, waiting, dataset=f"idx:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="nowhere"):
        docket(store, settings, waiting)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nowhere://bucket", "unknown scheme"),
        ("ftp://me:secret@host/folder", "holds a password"),
        (str(FIXTURES / "mnist-subset" / "README.md"), "cannot be kept"),
    ],
)
def test_a_place_for_checkpoints_that_will_not_do_is_refused(
    settings: Settings, url: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        check_checkpoints(settings.model_copy(update={"checkpoints": url}))
    assert "secret" not in str(refused.value)
