"""Where a trial runs: device, threads, revision and versions, as every run states them."""

import importlib.metadata
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import torch

from models.errors import InputError

PACKAGES = ("bnvit-study", "torch", "torchvision", "timm", "einops", "numpy", "optuna", "mlflow")


def device_of(name: str) -> torch.device:
    """The device called `name`: auto (CUDA, else the CPU), cpu, cuda, cuda:n or mps.

    Raises InputError for an unknown name or a device that this machine lacks.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise InputError(f"unknown device '{name}'; write auto, cpu, cuda, cuda:N or mps")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not cuda:
        raise InputError("no CUDA device is available here; use --device cpu or auto")
    if index and int(index) >= torch.cuda.device_count():
        raise InputError(f"there is no {name}; this machine has {torch.cuda.device_count()} GPUs")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("no Apple GPU is available here; use --device cpu or auto")
    return torch.device(name)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def revision() -> str:
    """Git revision of the code that runs, marked where it has changes; else its version."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return f"release {importlib.metadata.version('bnvit-study')}"
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
