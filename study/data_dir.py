"""The data folder: made with permissions that work, and found writable before work begins."""

import os
import tempfile
from pathlib import Path

from study.errors import StorageError


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
