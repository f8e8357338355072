"""One embedded server and one data folder for the tests of the service."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from study.mlflow_tracker import MlflowTracker
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.stop import Stop
from study.storage import Store, open_store
from tests.conftest import SUBSET, TINY, new_data_dir


@pytest.fixture(scope="session")
def shared_dir() -> Iterator[Path]:
    """A data folder that the tests of a session share."""
    with new_data_dir() as folder:
        yield folder


@pytest.fixture(scope="session")
def settings(shared_dir: Path) -> Settings:
    return Settings(data_dir=shared_dir, storage_url=None, mlflow_uri=None)


@pytest.fixture(scope="session")
def store(settings: Settings) -> Iterator[Store]:
    """An open store; it keeps the server alive for the whole session."""
    with open_store(settings) as opened:
        yield opened
        MlflowTracker(opened.mlflow_url).disconnect()  # for all clients: MLflow shares its engine


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Request:
    """A study of 4 short trials, named after the test."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")
    return Request(
        model="vitbn", switches=TINY, dataset=SUBSET, trials=4, epochs=1, device="cpu", study=name
    )


@pytest.fixture
def search(settings: Settings) -> Callable[[Request], Session]:
    """Run a study to its end; returns its session, closed, for questions to the store."""

    def run(request: Request, **changes: object) -> Session:
        asked = replace(request, **changes)  # type: ignore[arg-type]
        with open_session(asked, settings, lambda _: None) as session:
            session.work(Stop())
        return session

    return run
