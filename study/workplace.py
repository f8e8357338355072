"""What surrounds a worker while it works: its sign of life, its spool, its patience."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from sqlalchemy import func, select

from objectives.hardware import device_label
from study.attempt import Hands
from study.beat import Beat, Worker
from study.best import is_best
from study.data_dir import unusable
from study.environment import versions
from study.leftovers import note_address
from study.patience import Patience
from study.replay import Replayer, spool_folder, sync
from study.settings import Settings
from study.spool import Spool
from study.stop import Stop
from study.storage import Store, tracking_uri

FLUSH_S = 30.0  # for MLflow to take what it has not got yet, at the end
STOPPED_FLUSH_S = 2.0  # the same after a stop or an error
MOST_SKEW_S = 5.0  # of a clock, before it is worth a word

log = logging.getLogger(__name__)


@contextmanager
def workplace(
    store: Store,
    settings: Settings,
    device: torch.device,
    patience: Patience,
    name: str | None = None,
) -> Iterator[Hands]:
    """Sign on at the store, and sign off at the end."""
    stop = patience.stop
    worker = patience(lambda: introduce(store, device, name))
    with ExitStack() as stack:
        spool = patience(lambda: stack.enter_context(recording(store, settings, worker.name, stop)))
        beat = patience(lambda: stack.enter_context(Beat(store, worker)))
        yield Hands(beat, patience, stop, spool)


def introduce(store: Store, device: torch.device, name: str | None) -> Worker:
    """Who this process is, as others are told; warns of a clock that is far off."""
    node = socket.gethostname()
    ahead_s = clock_ahead_s(store)
    if abs(ahead_s) > MOST_SKEW_S:
        log.warning(
            "this node's clock is %.0f s %s the store's; leases go by the store's, times of "
            "events may look odd; set the clock (NTP)",
            abs(ahead_s),
            "ahead of" if ahead_s > 0 else "behind",
        )
    return Worker(
        name=name or worker_name(),
        node=node,
        pid=os.getpid(),
        device=device_label(device),
        versions=versions(),
        clock_ahead_s=round(ahead_s, 3),
    )


def worker_name() -> str:
    """A name for a worker of this process: node, process, and something unique."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"


def clock_ahead_s(store: Store) -> float:
    """How far this node's clock is ahead of the store's server, in seconds."""
    with store.engine.connect() as connection:
        connection.execute(select(1))  # connected, so that the next is quick
        theirs: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return (datetime.now(UTC) - theirs).total_seconds()


@contextmanager
def recording(store: Store, settings: Settings, name: str, stop: Stop) -> Iterator[Spool | None]:
    """A spool that is replayed to MLflow in the background, and as far as it goes at the end.

    None where tracking is off. What dead workers of this node left behind is passed on as well.
    """
    if settings.is_tracking_off:
        yield None
        return
    uri = tracking_uri(settings.mlflow_uri, store)
    folder = spool_folder(settings.spool_dir, store, uri)
    with (
        _unusable_told(folder),
        Spool(folder, name) as spool,
        Replayer(spool, store, uri, partial(is_best, store)) as replayer,
    ):
        note_address(folder, store, settings)
        flush_s = STOPPED_FLUSH_S
        try:
            yield spool
            if not stop.requested:
                flush_s = FLUSH_S
        except KeyboardInterrupt:  # at once
            flush_s = 0.0
            raise
        finally:
            if not replayer.flush(flush_s):
                log.warning(
                    "MLflow has not got %d records yet; they wait in %s: 'bnvit-study sync' on "
                    "this node, or the next worker, passes them on",
                    replayer.waiting,
                    folder,
                )
            elif flush_s == FLUSH_S:
                sync(folder, store, uri, partial(is_best, store))


@contextmanager
def _unusable_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(folder, error) from error
