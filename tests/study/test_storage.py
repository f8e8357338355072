"""Opening the store: a shared server over TCP, and all that can be wrong with it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from models.errors import InputError
from study.embedded import EmbeddedPostgres
from study.errors import StorageError
from study.settings import Settings, postgres_url
from study.storage import open_store
from tests.conftest import new_data_dir
from tests.integration.processes import steady_port

PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[str]:
    """host:port of a server that asks for passwords, as a team would share it."""
    port = steady_port()
    with new_data_dir() as folder:
        server = EmbeddedPostgres(folder / "postgres")
        with server:
            (server.data / "pg_hba.conf").write_text(
                "local all all peer map=owner\nhost all all 127.0.0.1/32 scram-sha-256\n"
            )
            admin_url = server.url("postgres").replace("+psycopg", "")
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(f"ALTER ROLE bnvit PASSWORD '{PASSWORD}'".encode())
                admin.execute("ALTER SYSTEM SET listen_addresses = '127.0.0.1'")
                admin.execute(f"ALTER SYSTEM SET port = {port}".encode())
        _restart_as_tcp(server)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server._control("stop", "-m", "fast")


def _restart_as_tcp(server: EmbeddedPostgres) -> None:
    server._control("start", "-l", str(server.log_file))


def url(server: str, user: str = "bnvit", password: str = PASSWORD, name: str = "optuna") -> str:
    return f"postgresql://{user}:{password}@{server}/{name}"


def settings_for(storage_url: str) -> Settings:
    return Settings(data_dir=Path("/nowhere"), storage_url=storage_url)


def test_a_shared_server_is_used_by_its_url(tcp_server: str) -> None:
    with open_store(settings_for(url(tcp_server))) as store:
        assert store.storage.get_all_studies() == []
        assert PASSWORD not in store.label
        assert store.mlflow_url.endswith("/mlflow")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"password": "wrong"}, "check user and password"),
        ({"user": "stranger"}, "check user and password"),
        ({"name": "missing"}, "createdb missing"),
    ],
)
def test_a_refused_login_says_what_to_check_and_hides_the_password(
    tcp_server: str, changes: dict[str, str], named: str
) -> None:
    with (
        pytest.raises(StorageError, match=named) as refused,
        open_store(settings_for(url(tcp_server, **changes))),
    ):
        pass
    assert PASSWORD not in str(refused.value)
    assert "wrong" not in str(refused.value)


def test_an_absent_server_is_told_within_seconds() -> None:
    with (
        pytest.raises(StorageError, match="check that the server runs"),
        open_store(settings_for(url("127.0.0.1:9"))),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sqlite:///x.db", "scheme 'sqlite' is not supported"),
        ("mysql://a@b/c", "scheme 'mysql' is not supported"),
        ("nonsense", "cannot be read"),
    ],
)
def test_only_postgres_is_a_store(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        postgres_url(text)


def test_the_usual_spellings_of_the_scheme_are_read() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert postgres_url(f"{scheme}://a@b/c").drivername == "postgresql+psycopg"
