"""Environment and defaults, read once and passed down as a frozen value."""

import os
from pathlib import Path

from platformdirs import user_data_path
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

APP_NAME = "bnvit-study"
SYSTEM_DATA_DIR = Path("/var/lib") / APP_NAME


def default_data_dir() -> Path:
    """The user's data folder; for root a system folder, which Postgres' account can enter."""
    return SYSTEM_DATA_DIR if os.geteuid() == 0 else user_data_path(APP_NAME)


class Settings(BaseSettings):
    """Where things are kept. Every field can be set as an environment variable."""

    model_config = SettingsConfigDict(env_prefix="BNVIT_", frozen=True, extra="ignore")

    data_dir: Path = Field(default_factory=default_data_dir)
    storage_url: str | None = None  # a shared Postgres; None: the embedded server
    mlflow_uri: str | None = Field(  # None: a database beside Optuna's; "none": no tracking
        default=None,
        validation_alias=AliasChoices("mlflow_uri", "BNVIT_MLFLOW_URI", "MLFLOW_TRACKING_URI"),
    )
