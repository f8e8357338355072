"""The workers of a store, as their signs of life tell."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from study.storage import Store

# A worker may hold the lease of a trial that it never heard of: the later lease counts.
_WORKERS = text("""
    SELECT DISTINCT ON (w.name)
           w.name, w.node, w.pid, w.device, w.versions, w.clock_ahead_s, w.started_at,
           extract(epoch FROM now() - w.seen_at)::float8 AS silent_s,
           held.study_name AS study, held.number
    FROM bnvit.worker w
    LEFT JOIN (
        SELECT l.worker, l.expires_at, s.study_name, t.number
        FROM bnvit.lease l
        JOIN trials t ON t.trial_id = l.trial_id AND t.state = 'RUNNING'
        JOIN studies s ON s.study_id = t.study_id
        WHERE l.expires_at > now()
    ) held ON held.worker = w.name
    WHERE w.seen_at > now() - interval '1 day'
    ORDER BY w.name, held.expires_at DESC NULLS LAST
""")


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that gave a sign of life within a day."""

    name: str
    node: str
    pid: int
    device: str
    versions: dict[str, str]
    clock_ahead_s: float  # of the store's, when it joined
    started_at: datetime
    silent_s: float  # since its last sign of life, by the store's clock
    study: str | None  # of the trial that it holds
    number: int | None
    lease_s: float  # a worker silent for longer has lost its trial

    @property
    def is_silent(self) -> bool:
        """Whether it has been silent for longer than a lease lasts."""
        return self.silent_s > self.lease_s

    @property
    def state(self) -> str:
        """What it does, in words."""
        if self.is_silent:
            return f"silent for {duration(self.silent_s)}"
        return "idle" if self.study is None else f"working on {self.study} #{self.number}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"state": self.state}


def read_workers(store: Store) -> list[WorkerStatus]:
    """The workers by name, without those that have been silent for over a day."""
    with store.engine.connect() as connection:
        rows = connection.execute(_WORKERS).mappings()
        return [WorkerStatus(**row, lease_s=store.lease_s) for row in rows]


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it: 45 s, 12 min, 3 h."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"
