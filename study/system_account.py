"""The account that runs Postgres where the user is root, as Postgres refuses to run as root."""

import logging
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from study.errors import StorageError

ACCOUNT = "bnvit-study"

log = logging.getLogger(__name__)


def server_account() -> pwd.struct_passwd:
    """The account to run the server as: the user's own, or for root a system account of its own.

    Creates that account where it is missing; raises StorageError where that fails.
    """
    if os.geteuid() != 0:
        return _own_account()
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        # Another process may have created it in the meantime.
        try:
            return pwd.getpwnam(ACCOUNT)
        except KeyError:
            raise StorageError(
                f"Postgres refuses to run as root and the account '{ACCOUNT}' cannot be created "
                f"({error}); run as an ordinary user, or set BNVIT_STORAGE_URL to a server"
            ) from error
    log.info("created the system account '%s', which runs the embedded Postgres", ACCOUNT)
    return pwd.getpwnam(ACCOUNT)


def check_reachable(path: Path, account: pwd.struct_passwd) -> None:
    """Raise StorageError if `account` may not enter a parent of `path`; changes no permissions."""
    closed = _closed_to(account, path)
    if closed is not None:
        raise StorageError(
            f"the account '{account.pw_name}', which runs Postgres for root, may not enter "
            f"{closed}; set BNVIT_DATA_DIR to a folder below one that everybody may enter"
        )


def may_use(account: pwd.struct_passwd, tree: Path) -> bool:
    """Whether `account` may read all that is in `tree`, and run what its owner may."""
    return _closed_to(account, tree) is None and all(
        _is_open(path.stat().st_mode) for path in (tree, *tree.rglob("*")) if not path.is_symlink()
    )


def copy_for_account(source: Path, target: Path) -> None:
    """Copy the tree `source` to `target` once and atomically, readable by every account."""
    if target.exists():
        return
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copytree(source, temporary, symlinks=True)
    for path in (temporary, *temporary.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | _bits_of_others(mode))
    try:
        temporary.rename(target)
    except OSError:  # another process was first
        shutil.rmtree(temporary)


def _closed_to(account: pwd.struct_passwd, path: Path) -> Path | None:
    """The innermost parent of `path` that `account` may not enter."""
    for parent in path.resolve().parents:
        status = parent.stat()
        bit = 0o100 if status.st_uid == account.pw_uid else 0o001
        if not status.st_mode & bit:
            return parent
    return None


def _bits_of_others(mode: int) -> int:
    """What group and others need to do as the owner does, but for writing."""
    return 0o055 if mode & 0o100 else 0o044


def _is_open(mode: int) -> bool:
    needed = _bits_of_others(mode)
    return mode & needed == needed


def _own_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise StorageError(
            f"user id {os.geteuid()} has no account on this machine, which Postgres needs; "
            "add one, or set BNVIT_STORAGE_URL to a server"
        ) from None
