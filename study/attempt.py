"""One claim's way from suggestion to outcome."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import optuna
from sqlalchemy.exc import SQLAlchemyError

from models.errors import BnvitError
from objectives import objective, starting
from objectives.errors import StateError
from objectives.metrics import Event, Pause, RungMetrics
from objectives.objective import Result
from objectives.outcome import Outcome
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.team import ALONE, Alone
from objectives.watch import OFF, Watch
from study import memory
from study.beat import Beat
from study.connections import is_outage
from study.errors import StorageError, StoreAwayError
from study.following import lead
from study.job import Job, trial_params
from study.leases import Claim, LeaseLostError
from study.ledger import Ledger
from study.patience import Patience
from study.spool import Spool
from study.stop import Stop
from study.suggestion import suggest
from study.tally import Tally

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
    team: Alone = ALONE  # the processes that train each trial together, of which this is the first
    tally: Tally = field(default_factory=Tally)


class Attempt:
    """A claimed trial in this worker's hands."""

    def __init__(self, job: Job, claim: Claim, hands: Hands) -> None:
        self.job = job
        self.claim = claim
        self.hands = hands
        self.number = claim.number
        self.ledger = Ledger(job, claim, hands.spool)
        self.saved_at_s = time.monotonic()
        self.is_pending = False  # a rung that the store has not been told of

    def run(self) -> Outcome | None:
        """Train and finish the trial; None if it went back to its slot or to another worker.

        Raises StoreAwayError where the store stays away, StorageError where nothing can be kept.
        """
        with self.hands.beat.holding(self.claim, lambda: self.ledger.progress):
            try:
                self._patiently(self.ledger.take_up)
                result = self._train()
                if result is not None:
                    return self._finish(result)
                self._put_back()
                return None
            except LeaseLostError:
                log.warning("trial %d was taken over by another worker, or deleted", self.number)
                return None
            except OSError as error:
                self.ledger.let_go()
                raise StorageError(
                    f"trial {self.number} cannot be kept in {self.job.checkpoints.folder} "
                    f"({error.strerror or error}); free space there and run the command again"
                ) from error
            except (BnvitError, KeyboardInterrupt):
                self.ledger.let_go()
                raise

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
            memory.free(self.ledger.run)
            return objective.out_of_memory(self.ledger.run, self.job.chance, reason)
        log.error("trial %d failed: %s", self.number, result.reason)
        log.debug("%s", result.traceback)
        return result

    def _train_to_the_end(self) -> Result | None:
        config = self._patiently(self._configure)
        reason = memory.too_large(self.job, config.batch_size)
        if reason is not None:
            self.ledger.recorder.open(config.as_dict())
            return objective.out_of_memory(None, self.job.chance, reason)
        run = self._start(config)
        if self.hands.beat.has_lost:
            raise LeaseLostError
        if self.hands.stop.requested:  # perhaps before its checkpoint was found
            return None
        self.ledger.run = run
        with closing(self._events(run)) as events:
            event: Event | None = None
            for event in events:
                if isinstance(event, Pause):
                    if self._look_up():
                        return None
                elif isinstance(event, RungMetrics):
                    objective.keep_reported(self.ledger.trial, run)
                    self._save(run)
                    self.is_pending = True
        result = objective.result(run, event, self.job.chance)
        if result.outcome is Outcome.COMPLETE and self.job.identity.is_tested:
            return objective.tested(result, run, self.job.test_split(run))
        return result

    def _events(self, run: Run) -> Generator[Event]:
        # A watch makes a step again by itself, which other processes would not take part in.
        is_watched = self.job.identity.is_watched and run.team.size == 1
        watch = Watch() if is_watched else OFF
        begin = partial(lead, run, self.job.study.study_name, self.job.identity)
        return objective.events(run, self._settle, self._wants_pause, watch, begin)

    def _configure(self) -> TrainConfig:
        values = suggest(self.job, self.claim.trial_id)
        self.ledger.write()
        return self.job.identity.config(values)

    def _start(self, config: TrainConfig) -> Run:
        """A new run, or one that goes on from the best checkpoint that can be used."""
        job = self.job
        run = starting.start(config, job.data, job.device, job.execution, self.hands.team)
        self.ledger.recorder.open(trial_params(job, config, run))
        if self.claim.attempt > 1:
            self._go_on(run)
        self.is_pending = True  # what an interrupted attempt had not told everybody
        return run

    def _go_on(self, run: Run) -> None:
        """Load the latest state that can be used; if there is none, start afresh."""
        states = self.job.checkpoints.states(
            self.number, self.claim.images_saved, self._is_to_leave
        )
        for images, state in states:
            try:
                run.load_state_dict(state)
            except StateError as error:  # raised before anything was loaded
                log.warning("trial %d: a checkpoint is of another run (%s)", self.number, error)
                continue
            log.info("trial %d goes on from %d images", self.number, run.images_seen)
            if run.processes > run.team.size:
                told = (self.number, run.processes, run.team.size)
                log.warning("trial %d was trained by %d processes and goes on with %d", *told)
            self.ledger.images_saved = self.ledger.images_before = images
            return

    def _is_to_leave(self) -> bool:
        return self.hands.stop.requested or self.hands.beat.has_lost

    def _wants_pause(self) -> bool:
        """Asked after each step; reads nothing but memory."""
        self.ledger.stepped_at_s = time.monotonic()
        beat = self.hands.beat
        return (
            self._is_to_leave()
            or self.hands.patience.is_over(beat.away_s)
            or (self.is_pending and beat.is_reachable)
            or self._is_save_due()
        )

    def _is_save_due(self) -> bool:
        return time.monotonic() - self.saved_at_s > CHECKPOINT_S

    def _look_up(self) -> bool:
        """Between two steps: whether to leave the trial.

        Raises LeaseLostError if it is gone, StoreAwayError if the store has been for too long.
        """
        assert self.ledger.run is not None
        beat, patience = self.hands.beat, self.hands.patience
        if beat.has_lost:
            raise LeaseLostError
        is_stop = self.hands.stop.requested
        if is_stop or self._is_save_due() or patience.is_over(beat.away_s):
            self._save(self.ledger.run)
        if not is_stop:
            patience.check(beat.away_s)
        return is_stop

    def _save(self, run: Run) -> None:
        self.job.checkpoints.save(self.number, run.state_dict(), run.images_seen)
        self.ledger.images_saved = run.images_seen
        self.saved_at_s = time.monotonic()

    def _settle(self) -> bool:
        """Tell the store of the rungs it has not got; whether the pruner gives the trial up.

        While the store is away training goes on, and this is tried again once it is back.
        """
        if not (self.is_pending and self.hands.beat.is_reachable):
            return False
        try:
            verdict = self.ledger.report()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("the store is away; trial %d goes on training", self.number)
            self.hands.beat.note_outage()
            return False
        self.is_pending = False
        return verdict

    def _finish(self, result: Result) -> Outcome:
        """Tell everybody how the trial ended; Optuna last, as that is the commit."""
        if self.is_pending and result.outcome is not Outcome.FAILED:
            self._patiently(self.ledger.report)
        with_weights = self._patiently(lambda: self.ledger.keeps_weights(result))
        self.ledger.record_end(result, with_weights)
        self._patiently(lambda: self.ledger.tell(result))
        self.job.checkpoints.discard(self.number)
        return result.outcome

    def _put_back(self) -> None:
        """The trial waits again, from its last checkpoint on."""
        self.ledger.recorder.put_back()
        try:
            if not self.hands.beat.is_reachable:
                raise StoreAwayError("no sign of life got through")
            self._patiently(self.ledger.release)
        except StoreAwayError:
            log.warning(
                "the store is away: trial %d waits again when its lease has run out", self.number
            )

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        return self.hands.patience(action)
