"""Fetching a data set once and whole, from the first source that delivers it."""

import contextlib
import hashlib
import http.client
import io
import shutil
import socket
import subprocess
import tarfile
import tempfile
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from objectives.errors import DataError

MIRROR_TIMEOUT_S = 30  # without an answer; torchvision itself would wait for ever

_FETCH_ERRORS = (
    RuntimeError,
    ConnectionError,
    TimeoutError,
    EOFError,
    KeyError,
    ValueError,
    http.client.HTTPException,
    urllib.error.URLError,
    subprocess.SubprocessError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)

Source = Callable[[Path], Path]
"""Puts the files of a data set somewhere under a temporary folder and says where."""


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched."""

    title: str
    files: str  # named to whoever has to put them there
    fault: Callable[[Path], str]  # what a folder lacks; empty if it is whole
    sources: Mapping[str, Source]


def fetch(folder: Path, wanted: Wanted) -> Path:
    """`folder`, holding the data set.

    Files appear under their names only once all are whole: each source writes to a temporary
    folder beside `folder`, under a lock that other processes wait for.

    Raises DataError naming the files, the folder and what was tried.
    """
    try:
        if not wanted.fault(folder):
            return folder
        from filelock import FileLock  # here: GPU machines read local files and often lack it

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if wanted.fault(folder):
                _fetch_into(folder, wanted)
    except OSError as error:
        raise DataError(
            f"cannot write {wanted.title} to {folder} ({error.strerror or error}); free space or "
            "permissions are missing there, or set BNVIT_DATA_DIR to another folder"
        ) from error
    return folder


def _fetch_into(folder: Path, wanted: Wanted) -> None:
    prefix = f"fetching-{folder.name}-"
    for left_over in folder.parent.glob(f"{prefix}*"):  # of a fetch that was killed
        shutil.rmtree(left_over)
    tried: list[str] = []
    for name, source in wanted.sources.items():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as temporary:
            try:
                files = source(Path(temporary))
            except _FETCH_ERRORS as error:
                tried.append(f"{name}: {_one_line(error)}")
                continue
            if fault := wanted.fault(files):
                tried.append(f"{name}: {fault}")
                continue
            shutil.rmtree(folder, ignore_errors=True)
            files.rename(folder)
            return
    raise DataError(
        f"{wanted.title} could not be fetched; put {wanted.files} into {folder} yourself. "
        f"Tried {'; '.join(tried)}"
    )


@contextlib.contextmanager
def torchvision_quiet() -> Iterator[None]:
    """Let torchvision download without its progress bars, and not for ever."""
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(timeout_s)


def program(name: str) -> str:
    """The path of a program that a source needs; raises RuntimeError where it is missing."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found


def run(*command: str, folder: Path, timeout_s: float) -> None:
    """Run a program in `folder` without a word; raises SubprocessError."""
    subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=timeout_s, cwd=folder
    )


def md5_matches(path: Path, md5: str) -> bool:
    """Whether `path` is a file of that checksum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def _one_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines() or [f"exit status {error.returncode}"]
        return f"{Path(error.cmd[0]).name}: {lines[0]}"
    return " ".join(str(error).split())
