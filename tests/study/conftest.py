"""One embedded server and one data folder for the tests of the service."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import pytest
from sqlalchemy import func, text

from study import spares
from study.docket import Docket
from study.leases import Claim
from study.mlflow_tracker import MlflowTracker
from study.patience import Patience
from study.request import Request
from study.schema import leases
from study.service import Session, open_session
from study.settings import Settings
from study.stop import Stop
from study.storage import Store, open_store
from study.worker import Limits, work
from study.workplace import workplace
from tests.conftest import SUBSET, TINY, copy_folder, new_data_dir
from tests.integration.processes import until

LEASE_S = 2.0


@pytest.fixture(autouse=True)
def handlers_of_logs() -> Iterator[None]:
    """As they were: the program sets its own."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(autouse=True)
def no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are called here run beside threads and connections of the tests."""
    monkeypatch.setattr(spares, "_number", lambda _: 0)


@pytest.fixture(scope="session")
def shared_dir(template_dir: Path) -> Iterator[Path]:
    """A data folder that the tests of a session share."""
    with new_data_dir() as folder:
        copy_folder(template_dir, folder)
        yield folder


@pytest.fixture(scope="session")
def settings(shared_dir: Path) -> Settings:
    return Settings(data_dir=shared_dir, storage_url=None, mlflow_uri=None)


@pytest.fixture(scope="session")
def shared_store(settings: Settings) -> Iterator[Store]:
    """An open store; it keeps the server alive for the whole session.

    Its leases are short, and it is settled: it gives trials away though it has only just started.
    """
    with open_store(settings) as opened:
        time.sleep(LEASE_S / 2)
        yield replace(opened, lease_s=LEASE_S)
        MlflowTracker(opened.mlflow_url).disconnect()  # for all clients: MLflow shares its engine


@pytest.fixture(scope="module")
def store(shared_store: Store) -> Store:
    """The open store, without the studies of other files: some commands look at all of them."""
    with shared_store.engine.begin() as connection:
        connection.execute(text("TRUNCATE studies CASCADE"))
    return shared_store


@pytest.fixture
def study(store: Store) -> optuna.Study:
    """An empty study of Optuna's."""
    return optuna.create_study(study_name=str(uuid4()), storage=store.storage)


def blank(numbers: range, _: object) -> list[dict[str, Any]]:
    """Slots whose values are left to the sampler."""
    return [{} for _ in numbers]


def lease_of(store: Store, claim: Claim) -> dict[str, Any]:
    """The row of the claim's trial in the table of leases."""
    with store.engine.connect() as connection:
        query = leases.select().where(leases.c.trial_id == claim.trial_id)
        return dict(connection.execute(query).mappings().one())


def end_lease(store: Store, claim: Claim) -> None:
    """Let the lease on the claim's trial run out, and the server be settled."""
    with store.engine.begin() as connection:
        past = func.now() - text("interval '1 hour'")
        connection.execute(
            leases.update().where(leases.c.trial_id == claim.trial_id).values(expires_at=past)
        )


def cut_off_where(
    store: Store, blocking: str, action: Callable[[], object]
) -> BaseException | None:
    """Call `action` and end its connection once it waits for `blocking`, a statement.

    Returns what it raised. `blocking` has not happened afterwards.
    """
    waiting = text("SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(1) as pool, store.engine.connect() as connection:
        connection.execute(text(blocking))
        acting = pool.submit(action)
        until(lambda: connection.scalar(waiting) or acting.done())
        return acting.exception()


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Request:
    """A study of 4 short trials, named after the test."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")
    return Request(
        model="vitbn", switches=TINY, dataset=SUBSET, trials=4, epochs=1, device="cpu", study=name
    )


def train(session: Session, stop: Stop | None = None) -> None:
    """Train a session's study in this process, as a worker does, and tidy up as `run` does."""
    stop = stop or Stop()
    with workplace(session.store, session.settings, session.device, Patience(60, stop)) as hands:
        docket = Docket(session.store, session.settings, session.device, [session.study.study_name])
        try:
            work(docket, hands, Limits())
        finally:
            docket.close()
        session.close(hands.spool)


@pytest.fixture
def search(settings: Settings) -> Callable[[Request], Session]:
    """Run a study to its end; returns its session, closed, for questions to the store."""

    def run(request: Request, **changes: object) -> Session:
        asked = replace(request, **changes)  # type: ignore[arg-type]
        with open_session(asked, settings, lambda _: None) as session:
            train(session)
        return session

    return run
