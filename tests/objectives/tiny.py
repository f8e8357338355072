"""Runs that last a second: small models of the article's family on the subset of MNIST."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from objectives.data import SearchData
from objectives.metrics import Event, RungMetrics
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.starting import start
from tests.conftest import CPU, SUBSET, TINY

CONFIG = TrainConfig(
    model="vitbn",
    switches=TINY,
    dataset=SUBSET,
    lr=1e-3,
    batch_size=20,
    rungs=(50, 110, 200),
    train_images=917,
    seed=0,
    recalibration_images=200,
)
DROPOUT = replace(TINY, dropout=0.2, emb_dropout=0.1)


def new_run(data: SearchData, **changes: Any) -> Run:
    """A run of `CONFIG` with `changes`, at its beginning, on the CPU."""
    return start(replace(CONFIG, **changes), data, CPU)


def untimed(event: Event) -> Event:
    """`event` without what differs between two runs of one configuration."""
    if not isinstance(event, RungMetrics):
        return event
    return replace(
        event, train_time_s=0.0, val_time_s=0.0, train_images_per_s=0.0, peak_memory_bytes=None
    )


def rung_metrics(rung: int, accuracy: float) -> RungMetrics:
    """The record of a rung at which nothing but the accuracy matters."""
    return RungMetrics(rung, rung, 0.1, 2.0, 2.0, accuracy, accuracy, 1.0, 1.0, 0.1, 0.1, 100.0)


def rungs(events: Iterable[Event]) -> list[RungMetrics]:
    """The events of a run, which must all be rungs."""
    seen = []
    for event in events:
        assert isinstance(event, RungMetrics), event
        seen.append(event)
    return seen
