"""A process that joins as a worker: opens what it needs, works, and leaves in order."""

import logging
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from objectives.compiling import keep_in
from objectives.hardware import cuda_index
from objectives.team import Alone
from study import data_dir, torchrun
from study.connections import hurry
from study.crew import ParentWatch
from study.docket import Docket, check_checkpoints
from study.environment import device_of
from study.errors import StoreAwayError
from study.following import follow, leading
from study.logs import be_brief, identify
from study.metrics_server import check_ports, serving
from study.patience import Patience
from study.settings import Settings
from study.shelf import Shelf
from study.stop import Stop, stop_on_signals
from study.storage import Store, open_store
from study.worker import Limits, work
from study.workplace import workplace

FLUSH_S = 3.0  # for checkpoints to reach their place, on the way out

log = logging.getLogger(__name__)


def join(
    settings: Settings,
    studies: Sequence[str],
    device_name: str,
    limits: Limits,
    *,
    threads: int | None = None,
    memory_share: float = 1.0,
    name: str | None = None,
    of_parent: int | None = None,
) -> int:
    """Work as one worker until there is nothing left to do; returns the exit code.

    SIGTERM, the notice of a pre-emption, is an orderly end: 0. `of_parent`: leave with the
    process of this id. Of the processes that torchrun has started the first is the worker; the
    others follow it, and leave when it does.
    """
    if of_parent is not None:
        be_brief()
    settings.check()
    check_checkpoints(settings)
    seat = torchrun.seat()
    device = device_of(seat.device_name(device_name))
    if threads is not None:
        torch.set_num_threads(threads)
    if memory_share < 1.0 and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(memory_share, cuda_index(device))
    data_dir.prepare(settings.data_dir)
    os.environ.update(keep_in(settings.data_dir))  # there for the next worker and after a restart
    with stop_on_signals() as stop, seat.team(device, settings.store_patience_s) as team:
        if team.rank > 0:
            follow(team, Shelf(settings.data_dir), device)
            return 0
        if of_parent is not None:
            ParentWatch(stop, of_parent).start()
        threading.Thread(target=_hurry_when_stopped, args=[stop], daemon=True).start()
        try:
            with leading(team):
                _join(settings, studies, device, limits, stop, name, team, of_parent is None)
        except StoreAwayError as error:
            if stop.signal != signal.SIGTERM:
                raise
            log.warning("%s", error)
    return stop.exit_code if stop.signal not in (None, signal.SIGTERM) else 0


def _hurry_when_stopped(stop: Stop) -> None:
    """A pre-emption leaves no time for a server that does not answer."""
    stop.event.wait()
    hurry()


def _join(
    settings: Settings,
    studies: Sequence[str],
    device: torch.device,
    limits: Limits,
    stop: Stop,
    name: str | None,
    team: Alone,
    is_alone: bool,
) -> None:
    if is_alone:
        check_ports(settings, 1)
    patience = Patience(settings.store_patience_s, stop)
    with ExitStack() as stack:
        show_metrics = stack.enter_context(serving(settings, is_alone))
        store = _opened(settings, stack, patience, is_alone)
        docket = patience(lambda: Docket(store, settings, device, studies, team.size))
        stack.callback(docket.close)
        hands = stack.enter_context(workplace(store, settings, device, patience, name))
        hands = replace(hands, team=team)
        identify(worker=hands.beat.worker.name)
        show_metrics(hands)
        if is_alone:
            log.info("worker %s joins %s", hands.beat.worker.name, store.label)
        ended = work(docket, hands, limits)
        if not stop.requested:
            patience(docket.tidy)
        docket.flush(FLUSH_S)
        if is_alone:
            log.info("worker %s leaves after %d trials", hands.beat.worker.name, ended)


def _opened(settings: Settings, stack: ExitStack, patience: Patience, is_alone: bool) -> Store:
    """The store; one that the `run` of this worker has just used is away, not a mistyped one."""

    def enter() -> Store:
        return stack.enter_context(open_store(settings))

    return enter() if is_alone else patience(enter)
