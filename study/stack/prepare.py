"""`python -m study.stack.prepare`: roles, databases, tables and the proxy's configuration.

Brings the servers of a team to where its services can start; does nothing that is done already. A
password that was changed in the environment is changed here.
"""

import sys

import psycopg
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr
from sqlalchemy import URL

from models.errors import BnvitError
from study.errors import StorageError
from study.migration import find_outdated, upgrade
from study.settings import Settings, default_data_dir
from study.stack.certificates import CERTIFICATE, KEY
from study.stack.login import Login
from study.stack.proxy import Listener, Proxy
from study.stack.roles import READER, ensure_role, let_read
from study.stack.team import ADMIN, MLFLOW, WORKER, TeamSettings, read_team_settings
from study.storage import CREATE_LOCK, libpq_url, open_store, probe
from study.tracking import open_tracker


def main() -> None:
    """Prepare all; an error is one line."""
    try:
        settings = read_team_settings()
        _proxy(settings).write(_login(settings))
        prepare_store(settings)
    except BnvitError as error:
        sys.exit(f"prepare: {error}")
    except OSError as error:
        sys.exit(f"prepare: {error.filename}: {error.strerror}")
    print("prepared: roles, databases, tables, the proxy's configuration")


def prepare_store(settings: TeamSettings) -> None:
    """Roles, databases and tables, each with the rights that its user needs and no more."""
    admin = _url(settings, ADMIN, settings.postgres_password, "postgres")
    probe(admin)
    with psycopg.connect(libpq_url(admin), autocommit=True) as connection:
        ensure_role(connection, WORKER, settings.worker_password.get_secret_value())
        ensure_role(connection, MLFLOW, settings.mlflow_password.get_secret_value())
        ensure_role(connection, READER, settings.dashboard_password.get_secret_value())
        _ensure_database(connection, "optuna", WORKER, [READER])
        _ensure_database(connection, "mlflow", MLFLOW, [])
    store_url = _url(settings, WORKER, settings.worker_password, "optuna")
    mlflow_url = _url(settings, MLFLOW, settings.mlflow_password, "mlflow")
    _bring_up_to_date(store_url, mlflow_url, settings.backed_up)
    plain = store_url.render_as_string(hide_password=False)
    given = Settings(storage_url=plain, mlflow_uri=None, data_dir=default_data_dir())
    with open_store(given) as store, store.locked(CREATE_LOCK):
        open_tracker(mlflow_url.render_as_string(hide_password=False)).disconnect()
    with psycopg.connect(libpq_url(admin.set(database="optuna")), autocommit=True) as connection:
        let_read(connection, WORKER)


def _bring_up_to_date(store_url: URL, mlflow_url: URL, backed_up: bool) -> None:
    older = find_outdated(store_url, mlflow_url)
    if older and not backed_up:
        raise StorageError(
            f"{'; '.join(map(str, older))}. Back up as docs/stack.md says, then: docker compose "
            "run --rm -e BNVIT_BACKED_UP=1 prepare"
        )
    if older:
        upgrade(store_url, mlflow_url)


def _ensure_database(
    connection: psycopg.Connection, name: str, owner: str, others: list[str]
) -> None:
    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
    words = {"name": Identifier(name), "owner": Identifier(owner)}
    if not found:
        connection.execute(SQL("CREATE DATABASE {name} OWNER {owner}").format(**words))
    connection.execute(SQL("REVOKE ALL ON DATABASE {name} FROM PUBLIC").format(**words))
    for role in others:
        statement = SQL("GRANT CONNECT ON DATABASE {name} TO {role}")
        connection.execute(statement.format(**words, role=Identifier(role)))


def _login(settings: TeamSettings) -> Login:
    return Login(
        settings.login_password.get_secret_value(), settings.worker_password.get_secret_value()
    )


def _proxy(settings: TeamSettings) -> Proxy:
    tls = settings.tls_folder
    return Proxy(
        folder=settings.proxy_folder,
        run=settings.proxy_run,
        listeners=[
            Listener(settings.proxy_http),
            Listener(settings.proxy_https, tls / CERTIFICATE, tls / KEY),
        ],
        dashboard=f"http://{settings.dashboard}",
        mlflow=f"http://{settings.mlflow}",
        mlflow_host=settings.mlflow,
        access_log="/dev/stdout",
        error_log="stderr",
        resolver=settings.resolver,
    )


def _url(settings: TeamSettings, role: str, password: SecretStr, database: str) -> URL:
    host, _, port = settings.postgres.partition(":")
    return URL.create(
        "postgresql+psycopg",
        username=role,
        password=password.get_secret_value(),
        host=host,
        port=int(port or 5432),
        database=database,
    )


if __name__ == "__main__":
    main()
