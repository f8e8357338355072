"""What `run` does while workers train: looks after slots and local workers until all is done."""

import logging
import time
from contextlib import ExitStack

from study.crew import Berth, Crew
from study.overview import Overview
from study.patience import Patience
from study.service import Session
from study.studies import is_stopped
from study.workplace import recording, worker_name

POLL_S = 1.0

log = logging.getLogger(__name__)


def coordinate(session: Session, places: list[Berth], patience: Patience) -> Overview:
    """Have the study trained by local workers at `places`, and by others elsewhere, to its end.

    Ends when all trials have ended, when the study was stopped, or when a stop is asked for;
    returns how the study stands then. Raises WorkerError where no local worker can go on,
    StoreAwayError where the store stays away.
    """
    store, settings, stop = session.store, session.settings, patience.stop
    with ExitStack() as stack:
        spool = patience(
            lambda: stack.enter_context(recording(store, settings, worker_name(), stop))
        )
        with Crew(store, session.study.study_name, settings, places) as crew:
            while not stop.requested:
                quiet_s = time.monotonic() - patience.last_outage_s
                is_settled = quiet_s > store.lease_s / 2  # others were cut off as well
                if patience(lambda: session.tend(spool, take_over=is_settled)):  # noqa: B023
                    crew.wait()
                    break
                has_stopped = patience(lambda: is_stopped(session.study))
                patience(lambda: crew.tend(has_stopped))  # noqa: B023
                if has_stopped and crew.has_left:
                    break
                stop.wait(POLL_S)
        patience(lambda: session.close(spool))
        return patience(session.overview)
