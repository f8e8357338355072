"""Local workers of a `run`: processes of their own, started, watched and stopped together."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

import torch

from study import leases
from study.errors import WorkerError
from study.settings import Settings
from study.spares import Spare
from study.stop import Stop
from study.storage import Store
from study.workplace import worker_name

PARENT_POLL_S = 0.25
RESTART_S = 1.0  # before a worker that died is replaced; doubled each time
LONGEST_RESTART_S = 60.0
STOP_TIMEOUT_S = 15.0  # for workers to save their trials
AT_ONCE_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 60.0  # for workers to pass on what they have recorded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Berth:
    """Where a local worker runs."""

    device: str
    threads: int
    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it
    memory_share: float = 1.0  # of its GPU
    metrics_port: int | None = None  # None: it serves no metrics


class Process(Protocol):
    """What a crew asks of a worker's process, wherever that runs; as `subprocess.Popen` has it."""

    @property
    def returncode(self) -> int | Any:
        """Its exit code, once `poll` has told it."""

    def poll(self) -> int | None:
        """Its exit code, below 0 after a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired after `timeout` seconds."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """Kill it."""


@dataclass
class Member:
    """A worker of a crew, and those that were in its place before it."""

    berth: Berth
    name: str
    process: Process
    restarts: int  # of workers before it in the same place
    gone_at_s: float | None = None


def berths(device: torch.device, workers: int | None, per_gpu: int) -> list[Berth]:
    """Where `workers` local workers run; None: one per GPU times `per_gpu`, or one on the CPU."""
    if device.type != "cuda":
        count = 1 if workers is None else workers
        threads = max(torch.get_num_threads() // max(count, 1), 1)
        return [Berth(str(device), threads)] * count
    gpus = _gpus(device)
    count = len(gpus) * per_gpu if workers is None else workers
    threads = max(torch.get_num_threads() // max(count, 1), 1)
    share = 1.0 / max(per_gpu, -(-count // len(gpus)))
    return [Berth("cuda", threads, gpus[index % len(gpus)], share) for index in range(count)]


class Crew:
    """Local workers of some studies, for as long as the context lasts."""

    def __init__(
        self,
        store: Store,
        studies: Sequence[str],
        settings: Settings,
        places: list[Berth],
        spares: list[Spare] | None = None,
    ) -> None:
        self.store = store
        self.studies = studies
        self.settings = settings
        self._spares = spares or []
        self._readers: list[threading.Thread] = []
        self.members: list[Member] = []
        try:
            for berth in _with_ports(places, settings.metrics_port):
                self.members.append(self._start(berth))
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tend(self, has_stopped: bool) -> None:
        """Replace workers that died; what they held is open to others at once.

        So too those that left though the studies have neither ended nor, as said, `has_stopped`:
        somebody told them to. Raises WorkerError when none is left and one of them had an error;
        it has said which.
        """
        codes = [member.process.poll() for member in self.members]
        gone = [
            code is not None and (code < 0 or (code == 0 and not has_stopped)) for code in codes
        ]
        for index, is_gone in enumerate(gone):
            if is_gone:
                self._replace(index)
        if any(codes) and not any(gone) and None not in codes:
            raise WorkerError("the workers have stopped; what they said is above")

    def _replace(self, index: int) -> None:
        """A moment later: by then it is known whether the study has ended."""
        member = self.members[index]
        code = member.process.returncode
        if member.gone_at_s is None:
            leases.abandon(self.store, member.name)
            member.gone_at_s = time.monotonic()
            if code < 0:
                log.warning("%s", self._told_death(member))
        elif time.monotonic() - member.gone_at_s > _pause_s(member.restarts):
            if code == 0:
                log.warning("a worker was told to leave; another takes its place")
            self.members[index] = self._start(member.berth, member.restarts + 1)

    def _name(self) -> str:
        return worker_name()

    def _told_death(self, member: Member) -> str:
        reason = signal.Signals(-member.process.returncode).name
        return f"a worker died ({reason}); another takes its place"

    @property
    def has_left(self) -> bool:
        """Whether all workers, if there were any, have ended in order."""
        return all(member.process.poll() == 0 for member in self.members)

    def wait(self) -> None:
        """Let the workers leave by themselves, as they do when their study has ended."""
        self._wait(LEAVE_TIMEOUT_S)

    def stop(self) -> None:
        """Ask all workers to save their trials and leave, and wait; kill those that do not.

        Interrupted, it asks again: then they leave at once.
        """
        try:
            self._ask_and_wait(signal.SIGTERM, STOP_TIMEOUT_S)
        except KeyboardInterrupt:
            self._ask_and_wait(signal.SIGINT, AT_ONCE_TIMEOUT_S)
            raise
        finally:
            for member in self._working():
                log.warning("a worker does not stop; it is killed, its trial goes on later")
                member.process.kill()
                member.process.wait()
            for reader in self._readers:
                reader.join(timeout=1.0)

    def _ask_and_wait(self, number: signal.Signals, timeout_s: float) -> None:
        for member in self._working():
            member.process.send_signal(number)
        self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        for member in self._working():
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(max(until_s - time.monotonic(), 0.01))

    def _working(self) -> list[Member]:
        return [member for member in self.members if member.process.poll() is None]

    def _start(self, berth: Berth, restarts: int = 0) -> Member:
        name = self._name()
        return Member(berth, name, self._launch(berth, name), restarts)

    def _launch(self, berth: Berth, name: str) -> Process:
        arguments = ["worker", "--of-parent", str(os.getpid())]
        arguments += arguments_of(self.studies, berth, name)
        environment = {**os.environ, **environment_of(self.settings, berth)}
        process = self._spares.pop() if self._spares else _started(arguments, environment)
        if isinstance(process, Spare):
            process.employ(arguments, environment)
        reader = threading.Thread(target=_pass_on, args=[process.stderr], daemon=True)
        reader.start()
        self._readers.append(reader)
        return process


def _started(arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """`bnvit-study ARGUMENTS` as a new process."""
    # "-P": a package called "models" where `run` was called is not ours.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "study.entry", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for `run`, which passes it on
    )


@dataclass
class ParentWatch:
    """Asks for a stop when the process that started this one is gone."""

    stop: Stop
    parent: int  # its process id

    def start(self) -> None:
        """Watch from now on, in the background."""
        threading.Thread(target=self._run, name="parent", daemon=True).start()

    def _run(self) -> None:
        while not self.stop.requested:
            if os.getppid() != self.parent:
                self.stop.request(signal.SIGTERM)
                log.warning("the 'run' that started this worker is gone; stopping")
            time.sleep(PARENT_POLL_S)


def _with_ports(places: list[Berth], first: int | None) -> list[Berth]:
    """The places, each with a port for its metrics; who replaces its worker takes that again."""
    if first is None:
        return places
    return [replace(place, metrics_port=first + index) for index, place in enumerate(places)]


def environment_of(settings: Settings, berth: Berth) -> dict[str, str]:
    """Settings by environment: a command line can be read by others, passwords included."""
    given = {
        "BNVIT_DATA_DIR": str(settings.data_dir),
        "BNVIT_STORAGE_URL": settings.storage_url or "",
        "BNVIT_MLFLOW_URI": settings.mlflow_uri or "",
        "MLFLOW_TRACKING_URI": "",
        "BNVIT_CHECKPOINTS": settings.checkpoints or "",
        "BNVIT_LEASE_S": str(settings.lease_s),
        "BNVIT_STORE_PATIENCE_S": str(settings.store_patience_s),
        "BNVIT_METRICS_PORT": str(berth.metrics_port or ""),
        "BNVIT_METRICS_HOST": settings.metrics_host,
        "OMP_NUM_THREADS": str(berth.threads),
    }
    if berth.gpu is not None:
        given["CUDA_VISIBLE_DEVICES"] = berth.gpu
    return given


def arguments_of(studies: Sequence[str], berth: Berth, name: str) -> list[str]:
    """What `bnvit-study worker` is told of its place; whose child it is comes before these."""
    words = ["--device", berth.device, "--threads", str(berth.threads), "--name", name]
    if berth.memory_share < 1.0:
        words += ["--memory-share", str(berth.memory_share)]
    return [*words, "--", *studies]


def _pause_s(restarts: int) -> float:
    return min(RESTART_S * 2.0 ** min(restarts, 10), LONGEST_RESTART_S)


def _gpus(device: torch.device) -> list[str]:
    """The GPUs to use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    return visible if device.index is None else [visible[device.index]]


def _pass_on(lines: IO[str]) -> None:
    with lines:
        for line in lines:
            print(line, end="", file=sys.stderr, flush=True)
