"""What is told of one trial: to Optuna behind the fence of its lease, and to the spool."""

import logging
from dataclasses import asdict
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from objectives import objective
from objectives.hardware import memory_bytes
from objectives.objective import Result
from objectives.outcome import Outcome
from objectives.run import Run
from study import slots
from study.beat import Progress
from study.best import best_rank, rank
from study.job import Job, computed
from study.keeping import keeps_all
from study.leases import Claim, LeaseLostError
from study.memory import MEMORY_KEY
from study.plan import COMPUTED, CURVE, TEST
from study.recorder import NullRecorder, TrialRecorder, known
from study.samplers import sampler
from study.spool import Spool

log = logging.getLogger(__name__)

_OPTUNA_STATES = {
    Outcome.COMPLETE: "COMPLETE",
    Outcome.PRUNED: "PRUNED",
    Outcome.DIVERGED: "COMPLETE",
    Outcome.OOM: "COMPLETE",
    Outcome.FAILED: "FAIL",
}


class Ledger:
    """Keeps a claimed trial's account. All but `recorder` may raise an outage, and be repeated.

    Whatever writes to Optuna raises LeaseLostError where another worker has the trial.
    """

    def __init__(self, job: Job, claim: Claim, spool: Spool | None) -> None:
        self.job = job
        self.claim = claim
        self.run: Run | None = None  # once it has begun
        self.images_saved = 0  # in the last checkpoint
        self.images_before = 0  # of attempts before this one, which goes on from there
        self.stepped_at_s = 0.0  # by the monotonic clock: the last training step
        self._recorded = 0  # rungs of the curve that are in the spool
        self.recorder = NullRecorder()
        if spool is not None and job.runs is not None:
            label = job.label(claim.number)
            self.recorder = TrialRecorder(spool, job.runs, label, claim.trial_id, claim.attempt)

    def take_up(self) -> None:
        """Read the trial; what was not written of another is forgotten."""
        self.job.study.sampler = sampler(self.job.identity, self.claim.number)
        try:
            self.job.storage.take_up(self.claim.trial_id)
        except KeyError as error:  # its study was deleted
            raise LeaseLostError from error
        self.trial = optuna.trial.Trial(self.job.study, self.claim.trial_id)

    @property
    def progress(self) -> Progress:
        """How far the trial is."""
        return Progress(self.run.images_seen if self.run is not None else 0, self.images_saved)

    def write(self) -> None:
        """Write what Optuna was told of the trial, in one statement that extends the lease."""
        told = self.progress
        self.job.storage.write(self.claim, told.seen, told.saved)

    def report(self) -> bool:
        """Tell of new rungs, Optuna first: what is recorded was accepted. Whether it prunes."""
        assert self.run is not None
        verdict = objective.settle(self.trial, self.run)
        self.write()
        for metrics in self.run.curve[self._recorded :]:
            self.recorder.rung(metrics)
        self._recorded = len(self.run.curve)
        return verdict

    def keeps_weights(self, result: Result) -> bool:
        """Whether a trial that ends with `result` is one whose weights are kept, by now."""
        if result.outcome is not Outcome.COMPLETE:
            return False
        if keeps_all(self.job.store, self.job.study._study_id):
            return True
        assert result.value is not None
        mine = rank(self.job.study, result.value, self.claim.number)
        return mine > best_rank(self.job.study)

    def record_end(self, result: Result, with_weights: bool) -> None:
        """Record the end in the spool."""
        if with_weights:
            assert self.run is not None
            self.recorder.weights(self.run.weights(), self.run.card)
        self.recorder.close(result, _OPTUNA_STATES[result.outcome])

    def tell(self, result: Result) -> None:
        """Tell Optuna how the trial ended, which is the commit."""
        if not self.job.storage.get_trial(self.claim.trial_id).state.is_finished():
            self._set_attr("outcome", result.outcome.value)
            self._set_attr("images_seen", self.progress.seen)
            self._set_account(result)
            if result.diverged is not None:
                self._set_attr("diverged", asdict(result.diverged))
            if result.reason:
                self._set_attr("reason", result.reason)
            if result.outcome is Outcome.OOM:
                self._set_attr(MEMORY_KEY, memory_bytes(self.job.device))
            objective.tell(self.trial, result)
        self.write()

    def _set_account(self, result: Result) -> None:
        """What comparisons and reports tell of the trial, so that they need only the store."""
        if result.test is not None:
            self._set_attr(TEST, asdict(result.test))
        if self.run is not None:
            self._set_attr(COMPUTED, computed(self.job, self.run))
            if self.job.identity.is_planned:
                self._set_attr(CURVE, [known(metrics) for metrics in self.run.curve])

    def release(self) -> None:
        """Put the trial back into its slot, with how far it is."""
        if self.run is not None:
            self._set_attr("images_seen", self.progress.seen)
        self.write()
        slots.release(self.job.store, self.claim)

    def let_go(self) -> None:
        """Put the trial back on the way out of an error; without the store its lease runs out."""
        try:
            slots.release(self.job.store, self.claim)
        except SQLAlchemyError as error:
            log.debug("not put back: %s", error)

    def _set_attr(self, key: str, value: Any) -> None:
        self.job.storage.set_trial_user_attr(self.claim.trial_id, key, value)
