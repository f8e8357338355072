"""Where a stack of one machine keeps what: folders, sockets, the login."""

import os
import pwd
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from study.data_dir import make_passable, socket_folder, write_private
from study.errors import StorageError
from study.server_process import Address
from study.stack.login import Login, new_secret
from study.system_account import server_account

PASSWORD_VARIABLE = "BNVIT_LOGIN_PASSWORD"
SOCKETS = ("dashboard.sock", "mlflow.sock")


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

    @property
    def sockets(self) -> Path:
        """The folder of the sockets."""
        return socket_folder(self.folder / "sockets", max(SOCKETS, key=len))

    def socket(self, name: str) -> Address:
        """The Unix socket of a service, one of `SOCKETS`, that only the proxy can reach."""
        assert name in SOCKETS
        return Address(socket=self.sockets / name)

    @property
    def password_file(self) -> Path:
        """Where the login's password can be read by who started the stack."""
        return self.folder / "password"

    def prepare(self) -> None:
        """Make the folders where they are missing.

        Raises OSError, StorageError where somebody else has made them.
        """
        make_passable(self.data_dir)
        for folder in (self.folder, self.sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                raise StorageError(f"{folder} belongs to another account; remove it or move away")
            folder.chmod(0o700)
            if self.account is not None:
                os.chown(folder, 0, self.account.pw_gid)
                folder.chmod(0o710)  # its group may pass

    def tidy(self) -> None:
        """Remove the folder of the sockets where it is not below the data folder."""
        if self.sockets.parent != self.folder:
            shutil.rmtree(self.sockets, ignore_errors=True)

    @property
    def password_at(self) -> str:
        """Where the login's password is, in words."""
        return PASSWORD_VARIABLE if os.environ.get(PASSWORD_VARIABLE) else str(self.password_file)

    def login(self) -> Login:
        """The login: the password of the environment, or of an earlier start, or a new one."""
        given = os.environ.get(PASSWORD_VARIABLE)
        if given:
            return Login(given, new_secret())
        if not self.password_file.exists():
            write_private(self.password_file, f"{new_secret()}\n".encode())
        return Login(self.password_file.read_text().strip(), new_secret())
