"""What a run of the store's workers came to: numbers, and tables of them for people."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from store_crew import Work
from store_meter import OPERATIONS, latencies

TARGETS_S = {"claim": 0.2, "sample": 1.0}  # p95, of 64 workers on 2 cores


@dataclass(frozen=True)
class Count:
    """A study's trials after all workers have left."""

    ended: int  # complete or pruned
    running: int  # nobody works on them any more
    failed: int
    repeated: int  # taken over by another worker


@dataclass(frozen=True)
class Result:
    """One study, worked on by one kind of worker."""

    kind: str  # ours or plain
    trials: int  # asked for
    before: int  # of these, made up beforehand
    workers: int
    is_cut_off: bool
    count: Count
    work: Work

    @property
    def lost(self) -> int:
        """Trials that never ended; where the run was cut off, those left behind as running."""
        if self.is_cut_off:
            return self.count.running
        return max(self.trials - self.count.ended, 0)

    @property
    def surplus(self) -> int:
        """Trials beyond those asked for."""
        return max(self.count.ended - self.trials, 0)

    @property
    def ended(self) -> int:
        """Trials that ended here."""
        return self.count.ended - self.before

    @property
    def cpu_ms_per_trial(self) -> float:
        """CPU time of workers and Postgres for one trial."""
        cpu_s = self.work.workers_cpu_s + self.work.postgres_cpu_s
        return cpu_s / max(self.ended, 1) * 1e3

    @property
    def shares(self) -> dict[str, float]:
        """Who used the CPU time: shares of the total in [0, 1], the largest first."""
        parts = dict.fromkeys((*OPERATIONS, "Postgres", "the rest of the workers"), 0.0)
        for span in self.work.spans:
            if span.operation in OPERATIONS:
                parts[span.operation] += span.cpu_s
        parts["the rest of the workers"] = self.work.workers_cpu_s - sum(parts.values())
        parts["Postgres"] = self.work.postgres_cpu_s
        total = sum(parts.values()) or 1.0
        largest = sorted(parts.items(), key=lambda part: -part[1])
        return {name: cpu_s / total for name, cpu_s in largest}

    @property
    def misses(self) -> list[str]:
        """The targets that are missed."""
        return [
            f"{latency.operation} p95 {latency.p95_s:.2f} s > {TARGETS_S[latency.operation]:g} s"
            for latency in latencies(self.work.spans)
            if latency.p95_s > TARGETS_S.get(latency.operation, float("inf"))
        ]

    def lines(self) -> list[str]:
        """The result in words."""
        work, cut = self.work, " when it was cut off" if self.is_cut_off else ""
        others_s = max(work.machine_cpu_s - work.workers_cpu_s - work.postgres_cpu_s, 0.0)
        largest = [f"{name} {share:.0%}" for name, share in list(self.shares.items())[:3]]
        return [
            f"{self.kind}: {self.count.ended:,} of {self.trials:,} trials ended{cut}, "
            f"{self.lost:,} lost, {self.surplus:,} surplus, {self.count.failed:,} failed, "
            f"{self.count.repeated:,} repeated",
            f"  {work.wall_s:.1f} s, {self.ended / (work.wall_s or 1.0):.1f} trials/s; CPU per "
            f"trial {self.cpu_ms_per_trial:.0f} ms; CPU of others meanwhile {others_s:.0f} s",
            f"  most CPU time: {', '.join(largest)}",
            *[f"  a worker failed: {error}" for error in sorted(set(work.errors))],
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        work = self.work
        return {
            "kind": self.kind,
            "trials": self.trials,
            "before": self.before,
            "workers": self.workers,
            "is_cut_off": self.is_cut_off,
            "lost": self.lost,
            "surplus": self.surplus,
            **asdict(self.count),
            "latencies": [asdict(latency) for latency in latencies(work.spans)],
            "wall_s": work.wall_s,
            "workers_cpu_s": work.workers_cpu_s,
            "postgres_cpu_s": work.postgres_cpu_s,
            "machine_cpu_s": work.machine_cpu_s,
            "cpu_ms_per_trial": self.cpu_ms_per_trial,
            "shares": self.shares,
            "misses": self.misses,
            "errors": work.errors,
        }


def latency_table(results: list[Result]) -> Table:
    """Latencies of both kinds, side by side in one column."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in ("trials", "worker", "operation"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "trials" else "left")
    for heading in ("number", "p50 s", "p95 s", "max s", "CPU ms", "statements"):
        table.add_column(heading, no_wrap=True, justify="right")
    for result in results:
        for latency in latencies(result.work.spans):
            table.add_row(
                f"{result.trials:,}",
                result.kind,
                latency.operation,
                f"{latency.count:,}",
                f"{latency.p50_s:.3f}",
                f"{latency.p95_s:.3f}",
                f"{latency.max_s:.3f}",
                f"{latency.cpu_ms:.1f}",
                f"{latency.statements:.1f}",
            )
    return table
