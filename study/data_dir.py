"""The data folder: made with permissions that work, and found writable before work begins."""

import hashlib
import os
import tempfile
from pathlib import Path

from study.errors import StorageError

SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 104 on macOS, 108 on Linux


def prepare(folder: Path) -> None:
    """Make `folder` where it is missing. Raises StorageError if it cannot be written to."""
    try:
        make_passable(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unusable(folder, error) from error


def unusable(folder: Path, error: OSError) -> StorageError:
    """What to say of a folder in which `error` happened."""
    return StorageError(
        f"cannot use {folder} ({error.strerror or error}); free space or permissions are missing "
        "there, or set BNVIT_DATA_DIR to another folder"
    )


def make_passable(folder: Path) -> None:
    """Make `folder` and its parents where they are missing.

    What root makes here every account may pass through, whatever the umask, as the account that
    runs Postgres must; that gives nobody leave to read.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            path.chmod(path.stat().st_mode | 0o011)


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, with its `mode` from the start. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    part.rename(path)


def dashboard_files(data_dir: Path) -> Path:
    """The folder of the files that reports attach to studies for Optuna Dashboard."""
    return data_dir / "dashboard-files"


def socket_folder(beside: Path, longest_name: str) -> Path:
    """Where Unix sockets lie: `beside`, or in the temporary folder where that path is too long."""
    if len(os.fsencode(beside)) <= SOCKET_PATH_LIMIT - len(f"/{longest_name}"):
        return beside
    digest = hashlib.sha256(os.fsencode(beside.parent)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"bnvit-{os.geteuid()}-{digest}"
