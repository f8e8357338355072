"""A worker: claims slots and trains one trial at a time, until none is open or it is stopped."""

import os
import socket
from collections.abc import Callable
from uuid import uuid4

from objectives.objective import Outcome
from study import slots
from study.attempt import Attempt
from study.errors import WorkerError
from study.job import Job
from study.stop import Stop

POLL_S = 1.0  # between looks at a store without an open slot
FAILURES_IN_A_ROW = 3  # after so many failed trials a worker gives up


def work(job: Job, stop: Stop, refill: Callable[[], None]) -> None:
    """Fill slots until all trials of the study have ended or a stop is asked for.

    `refill` makes a new slot for each failed trial, as those do not count.
    Raises WorkerError when trials fail one after another.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
    failures = 0
    while not stop.requested:
        claim = slots.claim(job.store, job.study, worker)
        if claim is None:
            refill()  # whoever failed a trial may have died before replacing it
            if all(trial.state.is_finished() for trial in job.study.get_trials(deepcopy=False)):
                return
            stop.wait(POLL_S)  # others are at work; their leases may yet expire
            continue
        outcome = Attempt(job, claim, stop).run()
        failures = failures + 1 if outcome is Outcome.FAILED else 0
        if outcome is Outcome.FAILED:
            refill()
        if failures == FAILURES_IN_A_ROW:
            raise WorkerError(
                f"{failures} trials failed one after another; the last error is in the log above. "
                "Mend it and run the same command again"
            )
