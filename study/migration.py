"""Bringing older tables of Optuna and MLflow up to date; the embedded store after a backup."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import optuna
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import OperationalError, ProgrammingError

from models.errors import InputError
from study.backup import back_up
from study.connections import SEARCH_PATH, reason_of
from study.embedded import EmbeddedPostgres
from study.errors import StorageError
from study.settings import Settings, postgres_url
from study.storage import MLFLOW_DATABASE


@dataclass(frozen=True)
class Outdated:
    """Tables that an older version made."""

    whose: str
    found: str
    needed: str

    def __str__(self) -> str:
        return f"{self.whose}: {self.found}, {self.needed} is needed"


def migrate(settings: Settings, backed_up: bool = False) -> Iterator[str]:
    """Bring all tables up to date; tells what is done.

    The embedded store is backed up before, below the data folder. Of a shared one `backed_up` says
    that it was. Raises InputError where it was not, StorageError where the store cannot be used.
    """
    with _addresses(settings) as (store_url, mlflow_url):
        older = find_outdated(store_url, mlflow_url)
        if not older:
            yield "all tables are up to date"
            return
        yield from map(str, older)
        if settings.storage_url is None:
            folder = _backup_folder(settings.data_dir)
            back_up(settings, folder)
            yield f"backed up to {folder}"
        elif not backed_up:
            raise InputError(
                "back the store up where it runs, as docs/stack.md says, and then run: "
                "bnvit-study migrate --backed-up"
            )
        upgrade(store_url, mlflow_url)
        yield "all tables are up to date"


def find_outdated(store_url: URL, mlflow_url: URL) -> list[Outdated]:
    """Which tables are older than what is installed needs. Raises StorageError."""
    return [*_optuna(store_url), *_mlflow(mlflow_url)]


def upgrade(store_url: URL, mlflow_url: URL) -> None:
    """Bring them up to date. Raises StorageError where that fails."""
    os.environ["PGOPTIONS"] = SEARCH_PATH
    try:
        _upgrade_optuna(store_url)
        if any(_mlflow(mlflow_url)):
            _upgrade_mlflow(mlflow_url)
    except Exception as error:  # each library has its own, and none says what to do
        raise StorageError(
            f"the tables could not be brought up to date ({reason_of(error)}); restore the backup "
            "into an empty store and use the version that made it"
        ) from error


@contextmanager
def _addresses(settings: Settings) -> Iterator[tuple[URL, URL]]:
    """Of the store and of MLflow's database beside it."""
    with ExitStack() as stack:
        if settings.storage_url is not None:
            url = postgres_url(settings.storage_url)
        else:
            server = EmbeddedPostgres(settings.data_dir / "postgres")
            if not server.exists():
                raise InputError(f"there is no store in {settings.data_dir} yet")
            url = make_url(stack.enter_context(server).url("optuna"))
        yield url, url.set(database=MLFLOW_DATABASE)


def _optuna(url: URL) -> Iterator[Outdated]:
    storage = _older_storage(url)
    try:
        found, needed = storage.get_current_version(), storage.get_head_version()
    finally:
        storage.engine.dispose()
    if found != needed:
        yield Outdated("Optuna's tables", found, needed)


def _mlflow(url: URL) -> Iterator[Outdated]:
    """Nothing where it has no tables yet, or no database here."""
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version

    engine = create_engine(url)
    try:
        found, needed = _get_schema_version(engine), _get_latest_schema_revision()
    except (OperationalError, ProgrammingError):
        return
    finally:
        engine.dispose()
    if found is not None and found != needed:
        yield Outdated("MLflow's tables", found, needed)


def _upgrade_optuna(url: URL) -> None:
    storage = _older_storage(url)
    try:
        storage.upgrade()
    finally:
        storage.engine.dispose()


def _upgrade_mlflow(url: URL) -> None:
    from mlflow.store.db.utils import _upgrade_db

    engine = create_engine(url)
    try:
        _upgrade_db(engine)
    finally:
        engine.dispose()


def _older_storage(url: URL) -> optuna.storages.RDBStorage:
    plain = url.render_as_string(hide_password=False)
    try:
        return optuna.storages.RDBStorage(
            plain,
            engine_kwargs={"connect_args": {"options": SEARCH_PATH}},
            skip_compatibility_check=True,
        )
    except OperationalError as error:
        raise StorageError(f"the store cannot be opened: {reason_of(error)}") from error


def _backup_folder(data_dir: Path) -> Path:
    return data_dir / "backups" / f"before-migration-{datetime.now(UTC):%Y%m%d-%H%M%S}"
