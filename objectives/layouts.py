"""Workers × threads on a CPU: how many images per second k processes train together."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from objectives.compiling import keep_in
from objectives.layout_probe import Probe

LIMIT_S = 300.0  # for the processes of a layout to start, warm up and train
ROOT = Path(__file__).resolve().parents[1]  # of the packages, which need not be installed


@dataclass(frozen=True)
class Layout:
    """Processes that train at the same time."""

    workers: int
    threads: int  # of each

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}"


@dataclass(frozen=True)
class _Racer:
    """A process that trains."""

    process: "subprocess.Popen[str]"
    said: IO[str]  # what it writes besides its answers

    def tell(self, line: str) -> None:
        """Send it a line; if it has failed, its answer will say so."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def answer(self) -> str:
        """Its next line; raises RuntimeError where there is none."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return line
        code = self.process.wait()
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"it ended with code {code}")


def layouts(cores: int) -> list[Layout]:
    """All ways of giving each of `cores` to one worker, fewest workers first."""
    return [Layout(count, cores // count) for count in range(1, cores + 1) if cores % count == 0]


def images_per_s(layout: Layout, probe: Probe, seconds: float, limit_s: float = LIMIT_S) -> float:
    """Of all workers of `layout` together, each over at least `seconds`; threads of a CPU.

    Raises RuntimeError where a process cannot be started or fails, with the last line that it
    said, and where all this takes longer than `limit_s`.
    """
    with ExitStack() as stack:
        racers = [
            stack.enter_context(_racer(layout.threads, probe.data_dir, seconds))
            for _ in range(layout.workers)
        ]
        with _limit(limit_s, racers) as is_late:
            try:
                return _race(racers, probe)
            except RuntimeError as error:
                if is_late.is_set():
                    raise RuntimeError(f"it took longer than {limit_s:g} s") from error
                raise


def _race(racers: list[_Racer], probe: Probe) -> float:
    for racer in racers:
        racer.tell(probe.as_line())
    for racer in racers:
        racer.answer()  # it has warmed up
    for racer in racers:
        racer.tell("go")
    return sum(float(racer.answer()) for racer in racers)


@contextmanager
def _racer(threads: int, data_dir: str, seconds: float) -> Iterator[_Racer]:
    """A process that waits to be told what to train, and ends with the context."""
    command = [sys.executable, "-P", "-m", "objectives.layout_probe", str(threads), str(seconds)]
    own = keep_in(Path(data_dir)) | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,  # a Ctrl-C is for this process, which ends that one
            )
        except OSError as error:
            raise RuntimeError(f"a process could not be started: {error.strerror}") from error
        try:
            yield _Racer(process, said)
        finally:
            process.kill()
            process.communicate()


@contextmanager
def _limit(seconds: float, racers: list[_Racer]) -> Iterator[threading.Event]:
    """Kill the racers once the context has lasted so long; the event says so."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        for racer in racers:
            racer.process.kill()

    watch = threading.Timer(seconds, end)
    watch.start()
    try:
        yield is_late
    finally:
        watch.cancel()
