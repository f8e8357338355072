"""Environment and defaults, read once and passed down as a frozen value."""

import os
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_data_path
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from models.errors import InputError

APP_NAME = "bnvit-study"
ENV_PREFIX = "BNVIT_"
TRACKING_OFF = "none"  # as an MLflow URI
LOCAL_CHECKPOINTS = "local"  # as a place for checkpoints: on each node's own disk alone
MLFLOW_SCHEMES = ("http://", "https://", "postgresql", "sqlite")
LEASE_S = 30.0
MOST_LEASE_S = 86_400.0
STORE_PATIENCE_S = 600.0
MOST_PATIENCE_S = 86_400.0 * 365
MOST_PORT = 65_535
SYSTEM_DATA_DIR = Path("/var/lib") / APP_NAME


def default_data_dir() -> Path:
    """The user's data folder; for root a system folder, which Postgres' account can enter."""
    return SYSTEM_DATA_DIR if os.geteuid() == 0 else user_data_path(APP_NAME)


class Settings(BaseSettings):
    """Where things are kept. Every field can be set as an environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    storage_url: str | None = None  # a shared Postgres; None: the embedded server
    mlflow_uri: str | None = Field(  # None: a database beside Optuna's; "none": no tracking
        default=None,
        validation_alias=AliasChoices("mlflow_uri", "BNVIT_MLFLOW_URI", "MLFLOW_TRACKING_URI"),
    )
    # A worker silent for so long lost its trial.
    lease_s: float = Field(default=LEASE_S, gt=0, le=MOST_LEASE_S)
    ca: str | None = None  # authority of the servers' certificates: PEM, also as base64
    checkpoints: str | None = None  # where all nodes find checkpoints: a URL, or "local"
    # An outage ridden out.
    store_patience_s: float = Field(default=STORE_PATIENCE_S, ge=0, le=MOST_PATIENCE_S)
    metrics_port: int | None = Field(default=None, ge=1, le=MOST_PORT)  # None: no metrics
    metrics_host: str = Field(default="127.0.0.1", min_length=1)  # where that port is

    @field_validator("data_dir")
    @classmethod
    def _not_relative(cls, folder: Path) -> Path:
        """As all processes find it, wherever they run."""
        return folder.absolute()

    @field_validator("checkpoints")
    @classmethod
    def _absolute(cls, place: str | None) -> str | None:
        """A folder as all processes of this node can find it, wherever they run."""
        if place is None or place == LOCAL_CHECKPOINTS or ":" in place:
            return place
        return str(Path(place).absolute())

    @property
    def is_tracking_off(self) -> bool:
        """Whether nothing is recorded in MLflow."""
        return self.mlflow_uri == TRACKING_OFF

    @property
    def spool_dir(self) -> Path:
        """Where records wait for MLflow."""
        return self.data_dir / "spool"

    @property
    def mlflow_label(self) -> str:
        """Where MLflow's store is, for people; without a password."""
        if self.mlflow_uri is None:
            return "a database beside the studies"
        return "off" if self.is_tracking_off else shown_address(self.mlflow_uri)

    @property
    def mlflow_address(self) -> str | None:
        """The address that was given, without a password; None: none was, or tracking is off."""
        if self.mlflow_uri is None or self.is_tracking_off:
            return None
        return shown_address(self.mlflow_uri)

    def check(self) -> None:
        """Raise InputError for an address that could never be used; connects to nothing."""
        if self.storage_url is not None:
            postgres_url(self.storage_url)
        if self.mlflow_uri is None or self.is_tracking_off:
            return
        try:
            make_url(self.mlflow_uri)
        except (ArgumentError, ValueError):
            raise InputError(
                "the MLflow URI cannot be read; write http://HOST:PORT or "
                "postgresql://USER:PASSWORD@HOST/DATABASE"
            ) from None
        if not self.mlflow_uri.startswith(MLFLOW_SCHEMES):
            raise InputError(
                f"the MLflow URI must start with one of {', '.join(MLFLOW_SCHEMES)}, "
                f"or be '{TRACKING_OFF}'"
            )


def read_settings(given: Mapping[str, object]) -> Settings:
    """The environment's settings, with those `given` instead.

    Raises InputError naming the variable that cannot be used.
    """
    try:
        return Settings.model_validate(Settings().model_dump() | dict(given))
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"{ENV_PREFIX}{wrong['loc'][0]}".upper()
        raise InputError(f"{name} is '{wrong['input']}': {wrong['msg'].lower()}") from None


def is_server(mlflow_uri: str) -> bool:
    """Whether MLflow's address is that of a server, not of a database."""
    return mlflow_uri.startswith(("http://", "https://"))


def shown_address(text: str) -> str:
    """A store's or MLflow's address with stars for its password."""
    if text == TRACKING_OFF:
        return text
    return make_url(text).render_as_string(hide_password=True)


def postgres_url(text: str) -> URL:
    """`text` as a SQLAlchemy URL for psycopg; raises InputError if it is not Postgres'."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(
            "the storage URL cannot be read; write postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise InputError(
            f"the storage URL's scheme '{url.drivername}' is not supported; "
            "workers share a Postgres: postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    return url.set(drivername="postgresql+psycopg")
