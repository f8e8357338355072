"""Riding out outages: what is tried again, what is not, and for how long."""

import time
from collections.abc import Iterator

import optuna
import psycopg
import pytest
import sqlalchemy

from study import connections
from study.connections import bounded, is_outage
from study.errors import StoreAwayError
from study.patience import Patience
from study.stop import Stop
from tests.conftest import new_data_dir
from tests.integration.servers import Proxy, TcpPostgres


@pytest.fixture(scope="module")
def server() -> Iterator[TcpPostgres]:
    with new_data_dir() as folder, TcpPostgres(folder) as made:
        yield made


@pytest.fixture
def network(server: TcpPostgres) -> Iterator[Proxy]:
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def engine(server: TcpPostgres, network: Proxy) -> Iterator[sqlalchemy.Engine]:
    url = sqlalchemy.make_url(server.url(network.port)).set(drivername="postgresql+psycopg")
    made = bounded(sqlalchemy.create_engine(url, **connections.engine_options(idle_s=30)))
    yield made
    made.dispose()


def one(engine: sqlalchemy.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sqlalchemy.text("SELECT 1")).scalar_one())


def test_a_silent_server_is_given_up_and_asked_again(
    engine: sqlalchemy.Engine, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = engine.connect()
    connection.execute(sqlalchemy.text("SELECT 1"))
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 0.5)
    network.freeze()
    began_s = time.monotonic()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="no answer") as told:
        connection.execute(sqlalchemy.text("SELECT 1"))
    assert time.monotonic() - began_s < 5
    assert is_outage(told.value)
    connection.close()
    network.thaw()
    assert Patience(30, Stop())(lambda: one(engine)) == 1


def test_a_restarted_server_is_waited_for(
    engine: sqlalchemy.Engine, server: TcpPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    one(engine)
    server.kill()
    tries = []

    def attempt() -> int:
        tries.append(1)
        if len(tries) == 2:
            server.start()
        return one(engine)

    with caplog.at_level("INFO"):
        assert Patience(60, Stop())(attempt) == 1
    assert caplog.text.count("the store is away") == 1
    assert "the store is back after" in caplog.text


def test_optunas_wrapping_is_seen_through(engine: sqlalchemy.Engine, network: Proxy) -> None:
    url = engine.url.render_as_string(hide_password=False)
    storage = optuna.storages.RDBStorage(url)
    try:
        network.cut()
        with pytest.raises(optuna.exceptions.StorageInternalError) as told:
            storage.get_all_studies()
        assert is_outage(told.value)
    finally:
        storage.engine.dispose()


def test_a_connection_lost_between_two_statements_of_optunas_is_an_outage(
    engine: sqlalchemy.Engine, network: Proxy
) -> None:
    storage = optuna.storages.RDBStorage(engine.url.render_as_string(hide_password=False))
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE])

    def cut(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM trials" in statement:
            network.cut()

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(optuna.exceptions.StorageInternalError) as told:
            storage.get_all_trials(study_id)
    finally:
        storage.engine.dispose()
    assert is_outage(told.value)
    assert "rolled back" not in connections.reason_of(told.value)


def test_patience_ends(engine: sqlalchemy.Engine, network: Proxy) -> None:
    network.freeze()
    with pytest.raises(StoreAwayError, match="has been away for"):
        Patience(0.1, Stop())(lambda: one(engine))
    network.thaw()


def test_a_stop_ends_the_waiting(engine: sqlalchemy.Engine) -> None:
    stop = Stop()

    def away() -> int:
        stop.request(15)
        raise psycopg.OperationalError

    with pytest.raises(StoreAwayError):
        Patience(600, stop)(away)
    assert one(engine) == 1


def test_other_errors_are_raised_at_once(engine: sqlalchemy.Engine) -> None:
    def wrong() -> None:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT nonsense"))

    with pytest.raises(sqlalchemy.exc.ProgrammingError) as told:
        Patience(600, Stop())(wrong)
    assert not is_outage(told.value)
