"""Real `bnvit-study` processes for tests that kill them."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import SUBSET

PROGRAM = [sys.executable, "-c", "from study.entry import main; main()"]
TINY_RUN = (
    f"run --model vitbn --dataset {shlex.quote(SUBSET)} --device cpu "
    "--set dim=16 --set depth=2 --set heads=2 --set dim_head=8 --set mlp_dim=32"
)
STUDY = "mnist-subset-vitbn"


def start(line: str, data_dir: Path) -> "subprocess.Popen[str]":
    """Start `bnvit-study LINE` on `data_dir`."""
    environment = {
        **os.environ,
        "BNVIT_DATA_DIR": str(data_dir),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    for name in ("BNVIT_STORAGE_URL", "MLFLOW_TRACKING_URI", "BNVIT_DEBUG", "BNVIT_LOG_FORMAT"):
        environment.pop(name, None)
    return subprocess.Popen(
        [*PROGRAM, *shlex.split(line)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", timeout_s: float = 120) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `process`."""
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def show(data_dir: Path) -> dict[str, Any]:
    """The study as `show --json` tells it."""
    code, out, err = finish(start(f"show {STUDY} --json", data_dir))
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def wait_for_line(process: "subprocess.Popen[str]", part: str) -> list[str]:
    """Read the output up to the first line with `part` in it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return lines
    raise AssertionError(f"ended without '{part}': {lines}")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for `condition`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
