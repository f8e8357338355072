"""nginx as the door to the pages: its configuration, from a template beside this file."""

import importlib.resources
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError
from study.data_dir import write_private
from study.stack.login import Login

NGINX_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin"  # often not on a user's PATH
CONFIGURATION = "nginx.conf"
WITHOUT = "none"  # as BNVIT_NGINX
_TEMPLATE = "nginx.conf.in"
_USERS = "users"


@dataclass(frozen=True)
class Listener:
    """Where the proxy listens; with a certificate and its key, over TLS."""

    address: str  # as nginx writes it, such as 127.0.0.1:8080
    certificate: Path | None = None
    key: Path | None = None

    def lines(self) -> list[str]:
        """Its lines of the configuration."""
        if self.certificate is None:
            return [f"listen {self.address};"]
        return [
            f"listen {self.address} ssl;",
            f'ssl_certificate "{self.certificate}";',
            f'ssl_certificate_key "{self.key}";',
            "ssl_protocols TLSv1.2 TLSv1.3;",
        ]


@dataclass(frozen=True)
class Proxy:
    """What stands behind the login, and where.

    `dashboard` and `mlflow` are addresses as nginx's proxy_pass takes them; a name in them is
    asked for anew at `resolver`, a DNS server, as the address behind it may change.
    """

    folder: Path  # of its configuration
    run: Path  # of its process id and temporary files
    listeners: Sequence[Listener]
    dashboard: str
    mlflow: str
    mlflow_host: str  # a Host that MLflow allows
    access_log: str
    error_log: str
    resolver: str | None = None
    account: pwd.struct_passwd | None = None  # who runs its worker where root starts it

    @property
    def configuration(self) -> Path:
        """The file to start nginx with."""
        return self.folder / CONFIGURATION

    def write(self, login: Login) -> None:
        """Write the configuration and the file of users, both for the proxy's eyes alone."""
        users = self.folder / _USERS
        write_private(users, login.users_file().encode())
        if self.account is not None:
            os.chown(users, self.account.pw_uid, -1)  # its worker reads it, not its master
        write_private(self.configuration, self._filled(self._values(login, users)).encode())

    def _values(self, login: Login, users: Path) -> Mapping[str, str]:
        listen = [line for listener in self.listeners for line in listener.lines()]
        return {
            "USER": f"user {self.account.pw_name};" if self.account else "",
            "RUN": str(self.run),
            "ERROR_LOG": self.error_log,
            "ACCESS_LOG": self.access_log,
            "RESOLVER": f"resolver {self.resolver} valid=10s;" if self.resolver else "",
            "SESSION": login.session,
            "TOKEN": login.token,
            "LISTEN": "\n".join(f"        {line}" for line in listen),
            "USERS": str(users),
            "DASHBOARD": self.dashboard,
            "MLFLOW": self.mlflow,
            "MLFLOW_HOST": self.mlflow_host,
        }

    def _filled(self, values: Mapping[str, str]) -> str:
        text = importlib.resources.files("study.stack").joinpath(_TEMPLATE).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text


def find_nginx() -> str | None:
    """Where nginx is, as BNVIT_NGINX says or as it is found; None: there is none, or to be none.

    Raises InputError where the variable names no program: nobody is to be without a login by
    mistake.
    """
    given = os.environ.get("BNVIT_NGINX")
    if given == WITHOUT:
        return None
    if given and shutil.which(given) is None:
        raise InputError(
            f"BNVIT_NGINX is '{given}', which is no program; '{WITHOUT}' goes without a login"
        )
    if given:
        return shutil.which(given)
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("nginx", path=f"{path}:{NGINX_FOLDERS}")
