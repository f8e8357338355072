"""Real `bnvit-study` processes for tests that kill them."""

import json
import os
import random
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.conftest import SUBSET
from tests.integration.forks import Forked

PROGRAM = [sys.executable, "-c", "from study.entry import main; main()"]
TINY_RUN = (
    f"run --model vitbn --dataset {shlex.quote(SUBSET)} --device cpu "
    "--set dim=16 --set depth=2 --set heads=2 --set dim_head=8 --set mlp_dim=32"
)
STUDY = "mnist-subset-vitbn"
STEADY_PORTS = range(20_000, 32_000)
"""No system here takes one of these for an outgoing connection."""

_dice = random.SystemRandom()  # tests seed the other one, all alike

T = TypeVar("T")


def environment_on(data_dir: Path) -> dict[str, str]:
    """What commands on `data_dir` find around them."""
    environment = {
        **os.environ,
        "BNVIT_DATA_DIR": str(data_dir),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    for name in ("BNVIT_STORAGE_URL", "MLFLOW_TRACKING_URI", "BNVIT_DEBUG", "BNVIT_LOG_FORMAT"):
        environment.pop(name, None)
    return environment


def start(line: str, data_dir: Path) -> "subprocess.Popen[str]":
    """Start `bnvit-study LINE` on `data_dir`."""
    return subprocess.Popen(
        [*PROGRAM, *shlex.split(line)],
        env=environment_on(data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_soon(line: str, data_dir: Path) -> Forked:
    """The same in 0.1 s, as it imports nothing."""
    return Forked.start(line, environment_on(data_dir))


def start_run(more: str, data_dir: Path) -> Forked:
    """Start `bnvit-study run` of a tiny model on `data_dir`."""
    return start_soon(f"{TINY_RUN} {more}", data_dir)


def start_worker(data_dir: Path) -> Forked:
    """Start a worker of the study on `data_dir`, which a `run` has made."""
    return start_soon(f"worker --device cpu --threads 1 {STUDY}", data_dir)


def run_study(more: str, data_dir: Path) -> None:
    """A `run` of a tiny model to its end."""
    code, _, err = finish(start_run(more, data_dir))
    assert code == 0, err


def finish(
    process: "subprocess.Popen[str] | Forked", timeout_s: float = 120
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `process`."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode is not None, "it has ended"
    return process.returncode, out, err


def show(data_dir: Path) -> dict[str, Any]:
    """The study as `show --json` tells it."""
    code, out, err = finish(start_soon(f"show {STUDY} --json", data_dir))
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


def wait_until_said(process: Forked, part: str) -> None:
    """Wait until `part` stands in the output."""
    until(lambda: process.poll() is not None or part in process.out.read_text(), 240)
    assert part in process.out.read_text(), process.err.read_text()


def words_of(process: psutil.Process) -> list[str]:
    """Its command line, or the title that it gave itself; nothing once it has ended."""
    try:
        return " ".join(process.cmdline()).split()  # a title is one word to psutil
    except psutil.Error:
        return []


def connections_of(process: psutil.Process, kind: str) -> Iterator[Any]:
    """Of the process and of all below it, as psutil tells them."""
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a session of Postgres that ends
            yield from one.net_connections(kind)


def steady_port(count: int = 1) -> int:
    """A port of the loopback that stays free until its server listens, and while that is down.

    The first of `count` in a row. One of those that clients get by themselves could be taken in the
    meantime by a client that tries to connect to the server, even by connecting to itself.
    """
    while True:
        first = _dice.choice(STEADY_PORTS)
        with ExitStack() as probes, suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def until(condition: Callable[[], T | None], timeout_s: float = 120) -> T:
    """Wait until `condition` tells something that is not false; what it told.

    It is asked for about a tenth of the time: others need the processor to make it true.
    """
    end = time.monotonic() + timeout_s
    while True:
        asked_s = time.monotonic()
        told = condition()
        if told:
            return told
        now_s = time.monotonic()
        assert now_s < end
        time.sleep(min(max(0.05, 9 * (now_s - asked_s)), 0.5))
