"""Data folders that older versions wrote: refused, and brought up to date after a backup."""

from pathlib import Path

import optuna
import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, text

from models.errors import BnvitError, InputError
from study.embedded import EmbeddedPostgres
from study.errors import StorageError, TrackingError
from study.migration import migrate
from study.settings import Settings
from study.storage import open_store
from study.tracking import open_tracker

OLDER_OPTUNA = "v3.0.0.d"


@pytest.fixture
def older(made_dir: Path) -> Settings:
    """A store with a study, whose Optuna tables are an older Optuna's."""
    settings = Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)
    with open_store(settings) as store:
        optuna.create_study(study_name="kept", storage=store.storage)
        with store.engine.begin() as connection:
            connection.execute(text("DROP INDEX ix_trials_study_id"))  # what came after it
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{OLDER_OPTUNA}'"))
    return settings


def test_older_tables_are_refused_until_they_are_migrated_after_a_backup(older: Settings) -> None:
    with (
        pytest.raises(StorageError, match="made by an older Optuna; 'bnvit-study migrate'"),
        open_store(older),
    ):
        pass
    told = list(migrate(older))
    assert OLDER_OPTUNA in told[0]
    (backup,) = (older.data_dir / "backups").iterdir()
    assert str(backup) in told[1]
    assert {file.name for file in backup.iterdir()} == {"optuna.dump", "mlflow.dump"}
    with open_store(older) as store:
        assert optuna.get_all_study_names(store.storage) == ["kept"]
    assert list(migrate(older)) == ["all tables are up to date"]
    assert len(list((older.data_dir / "backups").iterdir())) == 1


def test_older_tables_of_mlflow_are_refused_and_migrated(made_dir: Path) -> None:
    from mlflow.store.db.utils import _get_alembic_config

    settings = Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)
    with open_store(settings) as store:
        engine = create_engine(store.mlflow_url)
        number = text("SELECT version_num FROM alembic_version")
        older = text("UPDATE alembic_version SET version_num = '451aebb31d03'")
        newest = text("UPDATE alembic_version SET version_num = :number")
        with engine.begin() as connection:
            found = connection.scalar(number)
            connection.execute(older)
        with pytest.raises(TrackingError, match="older MLflow; 'bnvit-study migrate'"):
            open_tracker(store.mlflow_url)
        with engine.begin() as connection:
            connection.execute(newest, {"number": found})
        config = _get_alembic_config(store.mlflow_url)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "-1")
        engine.dispose()
        told = list(migrate(settings))
        assert "MLflow's tables" in told[0]
        assert list(migrate(settings)) == ["all tables are up to date"]


def test_a_shared_store_is_migrated_only_when_it_was_backed_up(older: Settings) -> None:
    with EmbeddedPostgres(older.data_dir / "postgres") as server:
        shared = older.model_copy(update={"storage_url": server.url("optuna")})
        with pytest.raises(InputError, match="migrate --backed-up"):
            list(migrate(shared))
        assert list(migrate(shared, backed_up=True))[-1] == "all tables are up to date"
        with psycopg.connect(server.url("optuna").replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
        assert found != (OLDER_OPTUNA,)


def test_data_of_another_postgres_say_how_to_get_across(made_dir: Path) -> None:
    version = made_dir / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with (
        pytest.raises(StorageError, match=r"by Postgres 17, .* brings 18: .*bnvit-study backup"),
        EmbeddedPostgres(made_dir / "postgres"),
    ):
        pass


def test_an_empty_folder_has_nothing_to_migrate(data_dir: Path) -> None:
    with pytest.raises(BnvitError, match="there is no store in"):
        list(migrate(Settings(data_dir=data_dir, storage_url=None, mlflow_uri=None)))
