"""Where a stack of one machine keeps what: folders, sockets, the login."""

import os
import pwd
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from study.data_dir import make_passable, socket_folder
from study.server_process import Address
from study.stack.login import Login, new_secret
from study.system_account import server_account

PASSWORD_VARIABLE = "BNVIT_LOGIN_PASSWORD"


@dataclass(frozen=True)
class Layout:
    """The folder `stack` of a data folder, closed to others but for who runs nginx for root."""

    data_dir: Path

    @property
    def folder(self) -> Path:
        """Configuration and state."""
        return self.data_dir / "stack"

    @cached_property
    def account(self) -> pwd.struct_passwd | None:
        """Who runs nginx' worker where root starts it, as root itself should not; else None."""
        return server_account() if os.geteuid() == 0 else None

    def socket(self, name: str) -> Address:
        """A Unix socket that only the proxy can reach."""
        file = f"{name}.sock"
        return Address(socket=socket_folder(self.folder / "sockets", file) / file)

    @property
    def password_file(self) -> Path:
        """Where the login's password can be read by who started the stack."""
        return self.folder / "password"

    def prepare(self) -> None:
        """Make the folders where they are missing. Raises OSError."""
        make_passable(self.data_dir)
        sockets = self.socket("dashboard").socket
        assert sockets is not None
        for folder in (self.folder, sockets.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self.account is not None:
                os.chown(folder, 0, self.account.pw_gid)
                folder.chmod(0o710)  # its group may pass

    def login(self) -> Login:
        """The login: the password of the environment, or of an earlier start, or a new one."""
        given = os.environ.get(PASSWORD_VARIABLE)
        if given:
            return Login(given, new_secret())
        if not self.password_file.exists():
            descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{new_secret()}\n")
        return Login(self.password_file.read_text().strip(), new_secret())
