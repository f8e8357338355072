"""A worker's metrics for Prometheus: what is known anyway, read when somebody asks."""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from objectives.outcome import Outcome
from study.attempt import Hands
from study.beat import Beat
from study.spool import Spool
from study.tally import Held, Sums

DURATIONS_S = (1, 3, 10, 30, 60, 180, 600, 1_800, 3_600, 10_800, 36_000, 86_400)  # upper bounds


class WorkerCollector(Collector):
    """All metrics of the worker with these hands, as they are at the moment of a scrape."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands

    def collect(self) -> Iterator[Metric]:
        """Read each once; asks neither the store nor MLflow."""
        beat, tally, spool = self.hands.beat, self.hands.tally, self.hands.spool
        held = tally.held
        yield from worker_metrics(beat, held)
        yield from trial_metrics(tally.sums())
        yield from held_metrics(beat, held)
        if spool is not None:
            yield from spool_metrics(spool)


def worker_metrics(beat: Beat, held: Held | None) -> Iterator[Metric]:
    """Who the worker is, whether it trains, and how its connection to the store fares."""
    who = beat.worker
    yield InfoMetricFamily(
        "bnvit_worker",
        "Who the worker is",
        {
            "worker": who.name,
            "node": who.node,
            "pid": str(who.pid),
            "device": who.device,
            "version": who.versions.get("bnvit-study", ""),
        },
    )
    yield GaugeMetricFamily(
        "bnvit_worker_training", "1 while it holds a trial, 0 while it waits", held is not None
    )
    yield GaugeMetricFamily(
        "bnvit_last_beat_timestamp_seconds",
        "When the store last took its sign of life",
        time.time() - beat.silent_s,
    )
    yield GaugeMetricFamily(
        "bnvit_store_away_seconds", "For how long the store has been away", beat.away_s
    )


def trial_metrics(sums: Mapping[str, Sums]) -> Iterator[Metric]:
    """What the worker has done since it started, by study."""
    ended = CounterMetricFamily(
        "bnvit_trials_ended", "Trials that ended here", labels=["study", "outcome"]
    )
    images = CounterMetricFamily("bnvit_images_trained", "Images trained on here", labels=["study"])
    durations = HistogramMetricFamily(
        "bnvit_trial_duration_seconds",
        "Trials that ended here, from their claim to their end",
        labels=["study"],
    )
    for study, one in sums.items():
        for outcome in Outcome:
            ended.add_metric([study, outcome.value], one.ended[outcome])
        images.add_metric([study], one.images)
        durations.add_metric([study], _buckets(one.durations_s), sum(one.durations_s))
    yield from (ended, images, durations)


def held_metrics(beat: Beat, held: Held | None) -> Iterator[Metric]:
    """How the trial fares that the worker holds; without one there are no values."""
    progress = GaugeMetricFamily(
        "bnvit_last_progress_timestamp_seconds",
        "When the trial that it holds last trained a step, or was begun here",
        labels=["study"],
    )
    lease = GaugeMetricFamily(
        "bnvit_lease_age_seconds",
        "Since the lease of the trial that it holds was taken or extended",
        labels=["study"],
    )
    pace = GaugeMetricFamily(
        "bnvit_images_per_second",
        "Pace of training up to the latest rung, evaluation excluded",
        labels=["study"],
    )
    if held is not None:
        progress.add_metric([held.study], time.time() - held.still_s)
        lease.add_metric([held.study], min(beat.silent_s, held.age_s))
        if (images_per_s := held.images_per_s) is not None:
            pace.add_metric([held.study], images_per_s)
    yield from (progress, lease, pace)


def spool_metrics(spool: Spool) -> Iterator[Metric]:
    """What waits for MLflow."""
    yield GaugeMetricFamily("bnvit_spool_records", "Records that wait for MLflow", spool.waiting)
    yield GaugeMetricFamily(
        "bnvit_spool_bytes", "Bytes of the records that wait for MLflow", spool.waiting_bytes
    )
    yield GaugeMetricFamily(
        "bnvit_mlflow_lag_seconds", "Age of the oldest record that waits for MLflow", _lag_s(spool)
    )


def _lag_s(spool: Spool) -> float:
    """0 where nothing waits, or what does cannot be read and is about to be set aside."""
    entry = spool.head()
    if entry is None or entry.line is None:
        return 0.0
    return max(time.time() - entry.line.at_ms / 1000, 0.0)


def _buckets(durations_s: list[float]) -> list[tuple[str, float]]:
    """How many were as long as each bound or shorter, and how many there are."""
    ordered = sorted(durations_s)
    found: list[tuple[str, float]] = [
        (str(float(bound)), bisect_right(ordered, bound)) for bound in DURATIONS_S
    ]
    return [*found, ("+Inf", len(ordered))]
