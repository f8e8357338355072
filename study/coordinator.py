"""What a command does while workers train: looks after slots and workers until all is done."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack

from study.overview import Overview
from study.patience import Patience
from study.placing import Placing
from study.service import Session
from study.spool import Spool
from study.studies import is_stopped
from study.workplace import recording, worker_name

POLL_S = 1.0

log = logging.getLogger(__name__)


def coordinate(sessions: Sequence[Session], placing: Placing, patience: Patience) -> list[Overview]:
    """Have studies trained by workers as in `placing`, and by others elsewhere, to their end.

    Ends when all trials have ended, when all that is left was stopped, or when a stop is asked
    for; returns how the studies stand then. Raises WorkerError where none of those workers can go
    on, ClusterError where the Ray that places them is lost, StoreAwayError where the store stays
    away.
    """
    store, settings, stop = sessions[0].store, sessions[0].settings, patience.stop
    with ExitStack() as stack:
        spool = patience(
            lambda: stack.enter_context(recording(store, settings, worker_name(), stop))
        )
        if patience(lambda: _left(sessions, spool, take_over=False)):
            _have_trained(sessions, placing, spool, patience)
        for session in sessions:
            patience(lambda: session.close(spool))  # noqa: B023
        return [patience(session.overview) for session in sessions]


def _have_trained(
    sessions: Sequence[Session], placing: Placing, spool: Spool | None, patience: Patience
) -> None:
    store, settings, stop = sessions[0].store, sessions[0].settings, patience.stop
    names = [session.study.study_name for session in sessions]
    with placing.crew(store, names, settings, placing.places) as crew:
        while not stop.requested:
            quiet_s = time.monotonic() - patience.last_outage_s
            is_settled = quiet_s > store.lease_s / 2  # others were cut off as well
            left = patience(lambda: _left(sessions, spool, is_settled))  # noqa: B023
            if not left:
                crew.wait()
                break
            has_stopped = patience(lambda: all(is_stopped(one.study) for one in left))  # noqa: B023
            patience(lambda: crew.tend(has_stopped))  # noqa: B023
            if has_stopped and crew.has_left:
                break
            stop.wait(POLL_S)


def _left(sessions: Sequence[Session], spool: Spool | None, take_over: bool) -> list[Session]:
    """Look after each study; those that have trials left."""
    return [session for session in sessions if not session.tend(spool, take_over)]
