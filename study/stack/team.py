"""The stack of a team, as docker-compose.yml describes it: its settings, from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import InputError
from study.settings import ENV_PREFIX

SHORTEST_PASSWORD = 12  # characters
ADMIN = "postgres"  # the superuser, who makes roles and databases
WORKER = "bnvit"  # owns the database of studies
MLFLOW = "bnvit_mlflow"  # owns MLflow's
ANYWHERE = ("", "0.0.0.0", "::")  # as an address to bind to: no address of a machine
OWN_HOSTS = ("localhost", "127.0.0.1", "postgres", "proxy")


class TeamSettings(BaseSettings):
    """What the services of a team are told; each field is an environment variable, BNVIT_….

    Passwords come by environment alone, never by a command line.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    postgres: str = "postgres:5432"
    postgres_password: SecretStr = Field(default=...)
    worker_password: SecretStr = Field(default=...)
    mlflow_password: SecretStr = Field(default=...)
    dashboard_password: SecretStr = Field(default=...)
    login_password: SecretStr = Field(default=...)
    tls_folder: Path = Path("/srv/bnvit/tls")
    proxy_folder: Path = Path("/srv/bnvit/proxy")
    proxy_run: Path = Path("/tmp")
    proxy_http: str = "0.0.0.0:8080"
    proxy_https: str = "0.0.0.0:8443"
    dashboard: str = "dashboard:8080"
    mlflow: str = "mlflow:5000"
    resolver: str | None = None
    backed_up: bool = False  # so that older tables may be brought up to date


class ReachSettings(BaseSettings):
    """How other nodes reach this machine, and where the certificates for that lie."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    tls_folder: Path = Path("/srv/bnvit/tls")
    host: str | None = None  # name or address by which other nodes reach this machine
    bind: str | None = None  # address that is published; may stand for all of them
    postgres_port: int = 5432
    https_port: int = 8443

    @property
    def hosts(self) -> list[str]:
        """All names that the certificate is for."""
        given = [self.public_host] if self.public_host else []
        return list(dict.fromkeys([*given, *OWN_HOSTS]))

    @property
    def public_host(self) -> str | None:
        """By which other nodes reach this machine; None if they cannot."""
        return self.host or (self.bind if self.bind not in ANYWHERE else None)


def read_team_settings() -> TeamSettings:
    """The environment's settings. Raises InputError naming what is missing or too weak."""
    try:
        settings = TeamSettings()
    except ValidationError as error:
        names = [f"{ENV_PREFIX}{one['loc'][0]}".upper() for one in error.errors()]
        raise InputError(f"not set: {', '.join(names)}; see .env.example") from None
    for name, value in settings:
        if isinstance(value, SecretStr) and len(value) < SHORTEST_PASSWORD:
            raise InputError(
                f"{ENV_PREFIX}{name.upper()} is shorter than {SHORTEST_PASSWORD} characters; take "
                "one of: openssl rand -hex 24"
            )
    return settings
