"""What the store's workers measure of themselves, and how it is summed up."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import Engine, event

OPERATIONS = ("claim", "sample", "report", "finish")


@dataclass(frozen=True)
class Span:
    """One operation of one worker."""

    operation: str
    began_s: float  # by a clock that all processes of a machine share
    wall_s: float
    cpu_s: float  # of the worker's thread that did it
    statements: int  # of SQL; BEGIN, COMMIT and the probing of connections are not counted


@dataclass(frozen=True)
class Latency:
    """All spans of one operation."""

    operation: str
    count: int
    p50_s: float
    p95_s: float
    max_s: float
    cpu_ms: float  # mean, in the worker
    statements: float  # mean


@dataclass
class Account:
    """What one worker leaves behind."""

    spans: list[Span] = field(default_factory=list)
    cpu_s: float = 0.0  # of its whole process
    error: str = ""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Account":
        """What a worker wrote; one that was killed wrote nothing."""
        if not path.exists():
            return cls(error="killed")
        read = json.loads(path.read_text())
        return cls([Span(**span) for span in read["spans"]], read["cpu_s"], read["error"])


class Meter:
    """Times operations of this process; one at a time."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._statements = 0
        event.listen(Engine, "before_cursor_execute", self._count)

    def start(self) -> Span:
        """The beginning of an operation; hand it to `stop`."""
        return Span("", time.perf_counter(), 0.0, time.thread_time(), self._statements)

    def stop(self, operation: str, begun: Span) -> None:
        """Note `operation`, which began at `begun`."""
        wall_s = time.perf_counter() - begun.began_s
        cpu_s = time.thread_time() - begun.cpu_s
        statements = self._statements - begun.statements
        self.spans.append(Span(operation, begun.began_s, wall_s, cpu_s, statements))

    @contextmanager
    def measuring(self, operation: str) -> Iterator[None]:
        """Note what happens inside as `operation`, unless it raises."""
        begun = self.start()
        yield
        self.stop(operation, begun)

    def _count(self, *_: object) -> None:
        self._statements += 1


def latencies(spans: Sequence[Span]) -> list[Latency]:
    """Of each operation, those of every trial first."""
    names = {span.operation for span in spans}
    others = sorted(names.difference(OPERATIONS))
    return [
        _latency(name, [span for span in spans if span.operation == name])
        for name in (*OPERATIONS, *others)
        if name in names
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def _latency(operation: str, spans: Sequence[Span]) -> Latency:
    walls = [span.wall_s for span in spans]
    return Latency(
        operation,
        len(spans),
        percentile(walls, 0.5),
        percentile(walls, 0.95),
        max(walls),
        sum(span.cpu_s for span in spans) / len(spans) * 1e3,
        sum(span.statements for span in spans) / len(spans),
    )
