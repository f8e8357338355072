"""One claim's way from suggestion to outcome."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from models.errors import BnvitError
from objectives import objective, training
from objectives.errors import StateError
from objectives.metrics import Event, Pause, RungMetrics
from objectives.objective import Outcome, Result
from objectives.recipe import TrainConfig
from study import leases, memory, slots
from study.beat import Beat, Progress
from study.connections import is_outage
from study.errors import StorageError, StoreAwayError
from study.job import Job, trial_params
from study.leases import Claim, LeaseLostError
from study.patience import Patience
from study.recorder import NullRecorder, TrialRecorder
from study.samplers import sampler
from study.spool import Spool
from study.stop import Stop
from study.suggestion import suggest

CHECKPOINT_S = 300  # at least so often, between rungs as well

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

_NOT_THE_TRIALS_FAULT = (
    LeaseLostError,
    optuna.exceptions.StorageInternalError,
    SQLAlchemyError,
    BnvitError,
    OSError,
)


@dataclass(frozen=True)
class Hands:
    """What a worker brings to every trial."""

    beat: Beat
    patience: Patience
    stop: Stop
    spool: Spool | None  # None: tracking is off


class Attempt:
    """A claimed trial in this worker's hands."""

    def __init__(self, job: Job, claim: Claim, hands: Hands) -> None:
        self.job = job
        self.claim = claim
        self.hands = hands
        self.run_state: training.Run | None = None
        self.saved_images = 0  # in the last checkpoint
        self.saved_at_s = time.monotonic()
        self.is_pending = False  # a rung that the store has not been told of
        self.recorded = 0  # rungs of the curve that are in the spool
        self.number = claim.number
        self.trial = self._patiently(self._take_up)
        self.recorder = NullRecorder()
        if hands.spool is not None and job.runs is not None:
            label = job.label(self.number)
            self.recorder = TrialRecorder(
                hands.spool, job.runs, label, claim.trial_id, claim.attempt
            )

    def run(self) -> Outcome | None:
        """Train and finish the trial; None if it went back to its slot or to another worker.

        Raises StoreAwayError where the store stays away, StorageError where nothing can be kept.
        """
        with self.hands.beat.holding(self.claim, self._progress):
            try:
                result = self._train()
                if result is not None:
                    return self._finish(result)
                self._put_back()
                return None
            except LeaseLostError:
                log.warning("trial %d was taken over by another worker, or deleted", self.number)
                return None
            except OSError as error:
                self._let_go()
                raise StorageError(
                    f"trial {self.number} cannot be kept in {self.job.checkpoints.folder} "
                    f"({error.strerror or error}); free space there and run the command again"
                ) from error
            except (BnvitError, KeyboardInterrupt):
                self._let_go()
                raise

    def _take_up(self) -> optuna.Trial:
        self.job.study.sampler = sampler(self.job.identity, self.number)
        self.job.storage.take_up(self.claim.trial_id)
        return optuna.trial.Trial(self.job.study, self.claim.trial_id)

    def _train(self) -> Result | None:
        """How training ended, also by a bug or for want of memory; None if it was interrupted."""
        try:
            return self._train_to_the_end()
        except _NOT_THE_TRIALS_FAULT:
            raise
        except Exception as error:
            if self.hands.stop.at_once:  # some libraries turn an interruption into their error
                raise KeyboardInterrupt from error
            result = objective.failed(error)
            reason = str(error) if objective.is_out_of_memory(error) else None
        if reason is not None:  # out of the handler: the error held on to the memory
            memory.free(self.run_state)
            return objective.out_of_memory(self.run_state, self.job.chance, reason)
        log.error("trial %d failed: %s", self.number, result.reason)
        log.debug("%s", result.traceback)
        return result

    def _train_to_the_end(self) -> Result | None:
        config = self._patiently(self._configure)
        reason = memory.too_large(self.job, config.batch_size)
        if reason is not None:
            self.recorder.open(config.as_dict())
            return objective.out_of_memory(None, self.job.chance, reason)
        run = self.run_state = self._start(config)
        event: Event | None = None
        for event in objective.events(run, self._settle, self._wants_pause):
            if isinstance(event, Pause):
                if self._look_up():
                    return None
            elif isinstance(event, RungMetrics):
                self._save(run)
                self.is_pending = True
        return objective.result(run, event, self.job.chance)

    def _configure(self) -> TrainConfig:
        identity = self.job.identity
        values = suggest(self.job, self.claim.trial_id)
        self._write()
        return TrainConfig(
            model=identity.model,
            switches=identity.model_switches,
            dataset=identity.dataset,
            lr=float(values["lr"]),
            batch_size=int(values["batch_size"]),
            rungs=identity.rungs,
            train_images=identity.train_images,
            seed=identity.seed,
            recipe=identity.recipe,
            precision=identity.precision,
        )

    def _start(self, config: TrainConfig) -> training.Run:
        """A new run, or one that goes on from the best checkpoint that can be used."""
        run = training.start(config, self.job.data, self.job.device)
        self.recorder.open(trial_params(self.job, config, run))
        if self.claim.attempt > 1:
            self._go_on(run)
        self.is_pending = True  # what an interrupted attempt had not told everybody
        return run

    def _go_on(self, run: training.Run) -> None:
        """Load the latest state that can be used; if there is none, start afresh."""
        for images, state in self.job.checkpoints.states(self.number):
            try:
                run.load_state_dict(state)
            except StateError as error:  # raised before anything was loaded
                log.warning("trial %d: a checkpoint is of another run (%s)", self.number, error)
                continue
            log.info("trial %d goes on from %d images", self.number, run.images_seen)
            self.saved_images = images
            return

    def _wants_pause(self) -> bool:
        """Asked after each step; reads nothing but memory."""
        beat = self.hands.beat
        return (
            self.hands.stop.requested
            or beat.has_lost
            or (self.is_pending and beat.is_reachable)
            or time.monotonic() - self.saved_at_s > CHECKPOINT_S
        )

    def _look_up(self) -> bool:
        """Between two steps: whether to leave the trial. Raises LeaseLostError if it is gone."""
        assert self.run_state is not None
        if self.hands.beat.has_lost:
            raise LeaseLostError
        if self.hands.stop.requested:
            self._save(self.run_state)
            return True
        if time.monotonic() - self.saved_at_s > CHECKPOINT_S:
            self._save(self.run_state)
        return False

    def _save(self, run: training.Run) -> None:
        self.job.checkpoints.save(self.number, run.state_dict(), run.images_seen)
        self.saved_images = run.images_seen
        self.saved_at_s = time.monotonic()

    def _settle(self) -> bool:
        """Tell the store of the rungs it has not got; whether the pruner gives the trial up.

        While the store is away training goes on, and this is tried again once it is back.
        """
        if not self.is_pending:
            return False
        if not self.hands.beat.is_reachable:
            return False
        try:
            verdict = self._report()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("the store is away; trial %d goes on training", self.number)
            self.hands.beat.note_outage()
            return False
        self.is_pending = False
        return verdict

    def _report(self) -> bool:
        """Optuna first, behind the fence, then the spool: what is recorded was accepted."""
        run = self.run_state
        if run is None:
            return False
        verdict = objective.settle(self.trial, run)
        self._write()
        for metrics in run.curve[self.recorded :]:
            self.recorder.rung(metrics)
        self.recorded = len(run.curve)
        return verdict

    def _finish(self, result: Result) -> Outcome:
        """Tell everybody how the trial ended; Optuna last, as that is the commit."""
        if self.is_pending and result.outcome is not Outcome.FAILED:
            self._patiently(self._report)
        is_best = result.outcome is Outcome.COMPLETE and self._patiently(
            lambda: self._is_best(result)
        )
        if is_best and self.run_state is not None:
            self.recorder.weights(self.run_state.weights())
        self.recorder.close(result, _OPTUNA_STATES[result.outcome])
        self._patiently(lambda: self._tell(result))
        self.job.checkpoints.discard(self.number)
        return result.outcome

    def _tell(self, result: Result) -> None:
        if not self.job.storage.get_trial(self.claim.trial_id).state.is_finished():
            self._set_attr("outcome", result.outcome.value)
            self._set_attr("images_seen", self._progress().seen)
            if result.diverged is not None:
                self._set_attr("diverged", asdict(result.diverged))
            if result.reason:
                self._set_attr("reason", result.reason)
            if result.outcome is Outcome.OOM:
                self._set_attr(memory.MEMORY_KEY, memory.total_bytes(self.job.device))
            objective.tell(self.trial, result)
        self._write()

    def _write(self) -> None:
        """Write what Optuna was told of the trial, in one transaction that extends the lease."""
        told = self._progress()
        try:
            with leases.held(self.job.store, self.claim, (told.seen, told.saved)) as connection:
                self.job.storage.write(connection)
        except IntegrityError as error:  # the trial is no more: its study was deleted
            raise LeaseLostError from error
        self.job.storage.forget()

    def _is_best(self, result: Result) -> bool:
        assert result.value is not None
        return (result.value, -self.number) > best_rank(self.job.study)

    def _put_back(self) -> None:
        """The trial waits again, from its last checkpoint on."""
        self.recorder.put_back()
        try:
            if not self.hands.beat.is_reachable:
                raise StoreAwayError("no sign of life got through")
            self._patiently(self._release)
        except StoreAwayError:
            log.warning(
                "the store is away: trial %d waits again when its lease has run out", self.number
            )

    def _release(self) -> None:
        self._set_attr("images_seen", self._progress().seen)
        self._write()
        slots.release(self.job.store, self.claim)

    def _let_go(self) -> None:
        """Put the trial back on the way out of an error; without the store its lease runs out."""
        try:
            slots.release(self.job.store, self.claim)
        except SQLAlchemyError as error:
            log.debug("not put back: %s", error)

    def _progress(self) -> Progress:
        seen = self.run_state.images_seen if self.run_state is not None else 0
        return Progress(seen, self.saved_images)

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        return self.hands.patience(action)

    def _set_attr(self, key: str, value: Any) -> None:
        self.job.storage.set_trial_user_attr(self.claim.trial_id, key, value)


_OPTUNA_STATES = {
    Outcome.COMPLETE: "COMPLETE",
    Outcome.PRUNED: "PRUNED",
    Outcome.DIVERGED: "COMPLETE",
    Outcome.OOM: "COMPLETE",
    Outcome.FAILED: "FAIL",
}


def best_rank(study: optuna.Study) -> tuple[float, int]:
    """Value and negative number of the best trial, of equal ones the first."""
    ranks = [
        (trial.value, -trial.number)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs.get("outcome") == Outcome.COMPLETE and trial.value is not None
    ]
    return max(ranks, default=(-1.0, 1))
