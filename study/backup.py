"""Backups of the embedded store: both databases as files, taken while studies run."""

import os
import shutil
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from models.errors import InputError
from study.data_dir import unusable
from study.embedded import EmbeddedPostgres
from study.errors import StorageError
from study.postgres_cluster import DATABASES
from study.settings import Settings

# MLflow first: it is told of what the store has accepted, so it is never ahead in a backup, and
# what a trial lacks there comes with its end.
_ORDER = ("mlflow", "optuna")
_CONTENT = {"optuna": "studies", "mlflow": "runs"}  # a table that is empty where nothing was done
assert set(_ORDER) == set(DATABASES)


def back_up(settings: Settings, folder: Path) -> None:
    """Write both databases to `folder`, which must not exist; it appears when all is written.

    Raises InputError for a store or folder of another kind, StorageError where it fails.
    """
    _refuse_shared(settings)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder")
    server = EmbeddedPostgres(settings.data_dir / "postgres")
    if not server.exists():
        raise InputError(f"there is no store in {settings.data_dir} yet")
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True, mode=0o700)
        with server:
            for name in _ORDER:
                server.call("pg_dump", "--format=custom", f"--file={_dump(part, name)}", name)
        part.rename(folder)
    except OSError as error:
        raise unusable(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def restore(settings: Settings, folder: Path) -> None:
    """Read a backup into a store without studies.

    Raises InputError where `folder` is no backup or the store holds something, StorageError where
    it fails; the store is then empty.
    """
    _refuse_shared(settings)
    missing = [name for name in _ORDER if not _dump(folder, name).is_file()]
    if missing:
        raise InputError(f"{folder} is no backup: it has no {missing[0]}.dump")
    with EmbeddedPostgres(settings.data_dir / "postgres") as server:
        for name in DATABASES:
            if _holds_rows(server, name):
                raise InputError(
                    f"the store in {settings.data_dir} holds {_CONTENT[name]} already; set "
                    "BNVIT_DATA_DIR to an empty folder to restore into"
                )
        try:
            for name in _ORDER:
                server.call(
                    "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction",
                    "--exit-on-error", f"--dbname={name}", str(_dump(folder, name)),
                )  # fmt: skip
        except StorageError:
            for name in _ORDER:
                server.call("dropdb", "--force", "--if-exists", name)
                server.call("createdb", name)
            raise


def _dump(folder: Path, name: str) -> Path:
    return folder / f"{name}.dump"


def _holds_rows(server: EmbeddedPostgres, name: str) -> bool:
    """Whether anything was done in a database."""
    engine = create_engine(server.url(name))
    try:
        with engine.connect() as connection:
            query = text(f"SELECT EXISTS (SELECT FROM public.{_CONTENT[name]})")
            return bool(connection.scalar(query))
    except ProgrammingError:  # it has no tables yet
        return False
    finally:
        engine.dispose()


def _refuse_shared(settings: Settings) -> None:
    if settings.storage_url is not None:
        raise InputError(
            "the store is a shared Postgres: back it up where it runs, with pg_dump, or as "
            "docs/stack.md says"
        )
