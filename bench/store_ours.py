"""The product's own worker, timed, with an objective that sleeps."""

import signal
import threading
from collections.abc import Callable
from unittest.mock import patch

from store_meter import Meter, Span
from store_objective import blank_run, sleeping_train

from objectives import objective
from objectives.objective import Result
from objectives.outcome import Outcome
from objectives.recipe import TrainConfig
from objectives.run import Run
from study import worker
from study.attempt import Attempt, Hands
from study.docket import Docket
from study.job import Job
from study.joining import join
from study.leases import Claim
from study.ledger import Ledger
from study.settings import Settings
from study.spool import Spool
from study.worker import Limits


def work(
    settings: Settings,
    study: str,
    sleep_s: float,
    limit_s: float | None,
    meter: Meter,
    wait_for_all: Callable[[], None],
) -> None:
    """Work on `study` as `bnvit-study worker` does, but sleep where it would train.

    Replaced are the training itself, the run's description for MLflow and the checkpoints; all
    that talks to the store is the product's.
    """
    claim = worker._claim
    has_begun = False

    def timed(docket: Docket, hands: Hands) -> tuple[Job, Claim] | None:
        nonlocal has_begun
        if not has_begun:
            has_begun = True
            wait_for_all()
            _stop_after(limit_s)
        begun = meter.start()
        found = claim(docket, hands)
        meter.stop("claim" if found else "poll", begun)
        return found

    def attempt(job: Job, claim: Claim, hands: Hands) -> Attempt:
        return SleepingAttempt(job, claim, hands, meter)

    with (
        patch.object(worker, "_claim", timed),
        patch.object(worker, "Attempt", attempt),
        patch.object(objective, "train", sleeping_train(sleep_s)),
    ):
        join(settings, [study], "cpu", Limits(), threads=1)


class SleepingAttempt(Attempt):
    """The product's attempt at a trial, timed. There are no checkpoints.

    From the claim to the start of training all counts as sampling.
    """

    def __init__(self, job: Job, claim: Claim, hands: Hands, meter: Meter) -> None:
        self.meter = meter
        self.sampling: Span = meter.start()
        super().__init__(job, claim, hands)
        self.ledger = _TimedLedger(job, claim, hands.spool, meter)

    def _start(self, config: TrainConfig) -> Run:
        self.meter.stop("sample", self.sampling)
        self.is_pending = True  # as in the product
        return blank_run(config, self.job.data)

    def _save(self, run: Run) -> None:
        self.ledger.images_saved = run.images_seen

    def _finish(self, result: Result) -> Outcome:
        with self.meter.measuring("finish"):
            return super()._finish(result)


class _TimedLedger(Ledger):
    """The product's account of a trial, timed."""

    def __init__(self, job: Job, claim: Claim, spool: Spool | None, meter: Meter) -> None:
        self.meter = meter
        super().__init__(job, claim, spool)

    def report(self) -> bool:
        """Tell of new rungs; the first time there is none yet."""
        has_rung = self.run is not None and bool(self.run.curve)
        with self.meter.measuring("report" if has_rung else "begin"):
            return super().report()


def _stop_after(seconds: float | None) -> None:
    """Ask this worker to leave after its trial, as a notice of pre-emption does."""
    if seconds is not None:
        timer = threading.Timer(seconds, signal.raise_signal, [signal.SIGTERM])
        timer.daemon = True
        timer.start()
