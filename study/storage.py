"""The one place that opens the Optuna storage: the embedded Postgres or a shared one."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import optuna
import psycopg
import psycopg.errors
import psycopg.sql
import sqlalchemy
from sqlalchemy import URL, Engine, make_url, text

from study.connections import (
    CONNECT_TIMEOUT_S,
    BoundedConnection,
    bounded,
    engine_options,
    reason_of,
)
from study.embedded import EmbeddedPostgres
from study.errors import LockedError, StorageError
from study.schema import prepare
from study.settings import LEASE_S, Settings, postgres_url

LOCK_POLL_S = 0.05
LOCK_PATIENCE_S = 120.0
SCHEMA_LOCK = 7_231_001  # advisory lock around the creation of the store's tables
CREATE_LOCK = 7_231_002  # the same around that of studies, and of MLflow's tables
MLFLOW_DATABASE = "mlflow"

_LOST = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)

log = logging.getLogger(__name__)

# Of an outage Optuna warns by itself, with the whole statement; we say it in a line.
optuna.logging.set_verbosity(optuna.logging.ERROR)
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()


@dataclass(frozen=True)
class Store:
    """An open store. `optuna_url` may carry a password: pass it on, never print it."""

    optuna_url: str
    mlflow_url: str  # the database beside Optuna's in the same server
    storage: optuna.storages.RDBStorage
    engine: Engine  # for our own tables and locks, in Optuna's database
    at_once: Engine  # the same; each statement is a transaction of its own
    label: str  # where the store is, for people; without a password
    uuid: str  # the store's identity, whatever its address
    lease_s: float = LEASE_S  # a worker silent for so long has lost its trial

    @contextmanager
    def locked(self, key: int) -> Iterator[None]:
        """Hold a cluster-wide advisory lock; released as well when this process dies.

        Asked for again and again instead of waited for, so that each statement is short. Raises
        LockedError where its holder keeps it for longer than LOCK_PATIENCE_S.
        """
        until_s = time.monotonic() + LOCK_PATIENCE_S
        with self.at_once.connect() as connection:
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
                if time.monotonic() > until_s:
                    raise LockedError(
                        f"another process has held a lock of {self.label} for "
                        f"{LOCK_PATIENCE_S:.0f} s; it may hang: see 'bnvit-study status'"
                    )
                time.sleep(LOCK_POLL_S)
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the shared store if a URL is set, else the embedded server in the data folder.

    Raises StorageError where it cannot be reached or is lost later, InputError for a URL that is
    not Postgres'.
    """
    with ExitStack() as stack:
        if settings.storage_url is not None:
            url = postgres_url(settings.storage_url)
            probe(url)
            mlflow_url = url.set(database=MLFLOW_DATABASE)
            label = url.render_as_string(hide_password=True)
        else:
            server = stack.enter_context(EmbeddedPostgres(settings.data_dir / "postgres"))
            url, mlflow_url = make_url(server.url("optuna")), make_url(server.url(MLFLOW_DATABASE))
            label = f"embedded Postgres in {server.folder}"
        store = _open(url, mlflow_url, label, settings.lease_s)
        stack.callback(store.engine.dispose)
        stack.callback(store.storage.engine.dispose)
        stack.callback(store.storage.scoped_session.remove)
        try:
            yield store
        except _LOST as error:
            raise StorageError(
                f"the store was lost: {store.label} ({reason_of(error)}); run the same command "
                "again once it is back"
            ) from error


def probe(url: URL) -> None:
    """Connect once, within 5 s; raises StorageError saying what is wrong and what to do."""
    shown = url.render_as_string(hide_password=True)
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=CONNECT_TIMEOUT_S):
            return
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise StorageError(
            f"Postgres at {shown} cannot be reached ({reason}); {_advice(reason, url)}"
        ) from error
    except psycopg.Error as error:
        raise StorageError(f"the storage URL {shown} cannot be used: {error}") from error


def _advice(reason: str, url: URL) -> str:
    if "password" in reason or "role" in reason:
        return "check user and password"
    if "does not exist" in reason:
        return f"create it with: createdb {url.database}"
    return "check that the server runs and that host and port are right"


def tracking_uri(given: str | None, store: Store) -> str:
    """Where MLflow records: as `given`, else in the database beside the studies.

    Makes that database where it is missing; raises StorageError where that fails.
    """
    if given is not None:
        return given
    _ensure_database(make_url(store.optuna_url), MLFLOW_DATABASE)
    return store.mlflow_url


def _ensure_database(url: URL, name: str) -> None:
    """Create database `name` in the server at `url` if it is missing."""
    try:
        with BoundedConnection.connect(
            libpq_url(url), connect_timeout=CONNECT_TIMEOUT_S, autocommit=True
        ) as c:
            if c.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            c.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    except psycopg.errors.DuplicateDatabase:
        return  # another process was first
    except psycopg.OperationalError as error:
        raise StorageError(
            f"Postgres cannot be asked for MLflow's database ({reason_of(error)}); run the same "
            "command again once it is back"
        ) from error
    except psycopg.Error as error:
        raise StorageError(
            f"MLflow's database cannot be created ({reason_of(error)}); create it with: "
            f"createdb {name}, or set MLFLOW_TRACKING_URI"
        ) from error


def _lock_schema(connection: sqlalchemy.Connection) -> None:
    """Until the transaction ends; asked for again and again, as many may start at once."""
    lock = text("SELECT pg_try_advisory_xact_lock(:key)")
    while not connection.scalar(lock, {"key": SCHEMA_LOCK}):
        time.sleep(LOCK_POLL_S)


def libpq_url(url: URL) -> str:
    """The URL as libpq and psycopg read it, password included."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    before, mark, query = plain.partition("?")
    return before + mark + query.replace("+", "%20")  # libpq reads a plus as a plus


def _open(url: URL, mlflow_url: URL, label: str, lease_s: float) -> Store:
    plain = url.render_as_string(hide_password=False)
    engine = bounded(sqlalchemy.create_engine(url, **engine_options(lease_s)))
    try:
        with engine.begin() as connection:
            _lock_schema(connection)
            storage = optuna.storages.RDBStorage(plain, engine_kwargs=engine_options(lease_s))
            uuid = prepare(connection)
    except (*_LOST, RuntimeError) as error:
        # Optuna raises RuntimeError for tables of another of its versions, saying what to do.
        engine.dispose()
        if "storage upgrade" in str(error):
            raise StorageError(
                f"the tables of {label} were made by an older Optuna; 'bnvit-study migrate' backs "
                "them up and brings them up to date"
            ) from error
        raise StorageError(f"the store cannot be opened: {reason_of(error)}") from error
    bounded(storage.engine)
    mlflow_plain = mlflow_url.render_as_string(hide_password=False)
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
    return Store(plain, mlflow_plain, storage, engine, at_once, label, uuid, lease_s)
