"""The servers for chaos tests do what such tests build on."""

import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import closing
from pathlib import Path

import mlflow
import psycopg
import pytest

from tests.conftest import new_data_dir
from tests.integration.network import can_drop
from tests.integration.servers import MlflowServer, Proxy, TcpPostgres

CLIENTS = 70


@pytest.fixture(scope="module")
def postgres() -> Iterator[TcpPostgres]:
    with new_data_dir() as folder, TcpPostgres(folder) as server:
        yield server


@pytest.fixture
def proxy(postgres: TcpPostgres) -> Iterator[Proxy]:
    with Proxy(postgres.port) as network:
        yield network


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url)


def _answer(connection: psycopg.Connection, question: str = "SELECT pg_backend_pid()") -> object:
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def _assert_hangs(future: "Future[object]", during_s: float) -> None:
    with pytest.raises(NotDone):
        future.result(during_s)


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_a_postgres_that_comes_back_has_ended_connections_and_kept_data(
    postgres: TcpPostgres, way: str
) -> None:
    with closing(psycopg.connect(postgres.url(), autocommit=True)) as connection:
        connection.execute(f"CREATE TABLE {way} AS SELECT 7 AS n".encode())
        if way == "restart":
            postgres.restart()
        else:
            postgres.kill()
            with pytest.raises(psycopg.OperationalError, match="refused"):
                psycopg.connect(postgres.url())
            postgres.start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with closing(psycopg.connect(postgres.url())) as connection:
        assert _answer(connection, f"SELECT n FROM {way}") == 7


def test_a_wrong_password_is_refused(postgres: TcpPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.mlflow_url().replace(postgres.password, "wrong"))


def test_a_frozen_network_holds_old_and_new_connections_until_it_thaws(
    postgres: TcpPostgres, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    options = "tcp_user_timeout=400"  # ms without acknowledgement; the kernel goes on giving it
    url = f"{postgres.url(proxy.port)}?{options}"
    with closing(psycopg.connect(url)) as connection:
        backend = _answer(connection)
        proxy.freeze()
        old = threads.submit(_answer, connection)
        new = threads.submit(_connect, postgres.url(proxy.port))
        _assert_hangs(old, during_s=1)
        assert not new.done()
        proxy.thaw()
        assert old.result(5) == backend
        with closing(new.result(5)) as second:
            assert _answer(second) != backend


@pytest.mark.skipif(not can_drop(), reason="the kernel does not let this user filter packets")
def test_a_network_that_drops_packets_is_seen_by_the_kernel_of_a_peer(
    postgres: TcpPostgres, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    url = postgres.url(proxy.port)
    with (
        closing(psycopg.connect(url)) as patient,
        closing(psycopg.connect(f"{url}?tcp_user_timeout=400")) as impatient,
    ):
        backend = _answer(patient)
        proxy.drop()
        old = threads.submit(_answer, patient)
        new = threads.submit(_connect, url)
        with pytest.raises(psycopg.OperationalError, match="timed out"):
            impatient.execute("SELECT 1")
        _assert_hangs(old, during_s=0.1)
        assert not new.done()
        proxy.thaw()
        assert old.result(10) == backend
        new.result(10).close()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_cut_aborts_all_connections_and_lets_new_ones_through(
    postgres: TcpPostgres, proxy: Proxy, threads: ThreadPoolExecutor, frozen: bool
) -> None:
    url = postgres.url(proxy.port)
    connections = list(threads.map(_connect, [url] * CLIENTS))
    sleeping = [threads.submit(_answer, each, "SELECT pg_sleep(60)") for each in connections]
    if frozen:
        proxy.freeze()
    proxy.cut()
    for future in sleeping:
        with pytest.raises(psycopg.OperationalError):
            future.result(5)
    proxy.thaw()
    with closing(psycopg.connect(url)) as connection:
        assert _answer(connection) is not None


def test_much_data_passes_a_proxy_whole_also_through_a_freeze(
    postgres: TcpPostgres, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    big = "0123456789" * 3_000_000
    with closing(psycopg.connect(postgres.url(proxy.port))) as connection:
        echo = threads.submit(_answer, connection, f"SELECT '{big}'")
        for _ in range(10):
            time.sleep(0.02)
            proxy.freeze()
            time.sleep(0.02)
            proxy.thaw()
        assert echo.result(20) == big


def test_a_killed_mlflow_server_comes_back_with_its_runs(tmp_path: Path) -> None:
    with (
        MlflowServer(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as server,
        Proxy(server.port) as proxy,
    ):
        client = mlflow.MlflowClient(server.uri)
        run = client.create_run("0").info.run_id
        client.log_metric(run, "loss", 0.5)
        client.log_text(run, "kept", "file.txt")
        server.kill()
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{server.uri}/health")
        server.start()
        through_proxy = mlflow.MlflowClient(f"http://127.0.0.1:{proxy.port}")
        assert through_proxy.get_run(run).data.metrics == {"loss": 0.5}
        assert [file.path for file in client.list_artifacts(run)] == ["file.txt"]
