"""One claim's way from suggestion to outcome."""

import logging
from dataclasses import asdict
from typing import Any

import optuna
import torch
from sqlalchemy.exc import SQLAlchemyError

from models.errors import BnvitError
from objectives import objective, training
from objectives.errors import StateError
from objectives.metrics import Event, Pause, RungMetrics
from objectives.objective import Outcome, Result
from objectives.recipe import TrainConfig
from objectives.search_space import START_POINTS
from study import slots
from study.checkpoints import Checkpoints
from study.errors import StorageError
from study.job import Job, trial_params
from study.samplers import sampler
from study.slots import Beat, Claim
from study.stop import Stop
from study.tracking import TrialLabel

log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another worker has taken the trial over; this one's results of it are dropped."""


_NOT_THE_TRIALS_FAULT = (
    LeaseLostError,
    optuna.exceptions.UpdateFinishedTrialError,
    optuna.exceptions.StorageInternalError,
    SQLAlchemyError,
    BnvitError,
    OSError,
)


class Attempt:
    """A claimed trial in this worker's hands."""

    def __init__(self, job: Job, claim: Claim, stop: Stop) -> None:
        self.job = job
        self.claim = claim
        self.stop = stop
        study = job.study
        number = job.store.storage.get_trial(claim.trial_id).number
        study.sampler = sampler(job.identity, number)
        study._thread_local.cached_all_trials = None  # else kept from a trial that was lost
        study.get_trials(deepcopy=False)  # Optuna's cache must know a trial before it is used
        self.trial = optuna.trial.Trial(study, claim.trial_id)
        self.label = TrialLabel(study.study_name, job.uuid, number)
        self.checkpoints = Checkpoints(job.checkpoint_dir / job.uuid)
        self.run_id: str | None = None
        self.run_state: training.Run | None = None

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.label.number

    def run(self) -> Outcome | None:
        """Train and finish the trial; None if it went back to its slot or to another worker."""
        with Beat(self.job.store, self.claim, self._images_seen):
            try:
                result = self._train()
                if result is not None:
                    return self._finish(result)
                self._put_back()
                return None
            except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
                log.warning("trial %d was taken over by another worker", self.number)
                return None
            except OSError as error:
                slots.release(self.job.store, self.claim)
                raise StorageError(
                    f"trial {self.number} cannot be kept in {self.checkpoints.folder} "
                    f"({error.strerror or error}); free space there and run the command again"
                ) from error
            except (BnvitError, KeyboardInterrupt):
                slots.release(self.job.store, self.claim)
                raise

    def _train(self) -> Result | None:
        """How training ended, also by a bug or for want of memory; None if it was interrupted."""
        try:
            return self._train_to_the_end()
        except _NOT_THE_TRIALS_FAULT:
            raise
        except Exception as error:
            if self.stop.at_once:  # some libraries turn an interruption into an error of theirs
                raise KeyboardInterrupt from error
            result = objective.failed(error)
            reason = str(error) if objective.is_out_of_memory(error) else None
        if reason is not None:  # out of the handler: the error held on to the memory
            _free_memory(self.run_state)
            return objective.out_of_memory(self.run_state, self.job.chance, reason)
        log.error("trial %d failed: %s", self.number, result.reason)
        log.debug("%s", result.traceback)
        return result

    def _train_to_the_end(self) -> Result | None:
        run = self.run_state = self._start(self._configure())
        for metrics in run.curve:  # what an interrupted attempt had not told everybody
            self._record(metrics)
            objective.report(self.trial, metrics)
        event: Event | None = None
        for event in objective.events(self.trial, run, lambda: self.stop.requested):
            if isinstance(event, Pause):
                self.checkpoints.save(self.number, run.state_dict())
                return None
            if isinstance(event, RungMetrics):
                self._record(event)
                self.checkpoints.save(self.number, run.state_dict())
        return objective.result(run, event, self.job.chance)

    def _configure(self) -> TrainConfig:
        identity = self.job.identity
        values = identity.space.suggest(self.trial)
        self._set_attr("suggested_by", self._suggested_by())
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

    def _suggested_by(self) -> str:
        """Where the values came from: kept from the first attempt, a start point, or a sampler."""
        kept = self.trial.user_attrs.get("suggested_by")
        if kept is not None:
            return str(kept)
        if self.number < START_POINTS:
            return "start"
        return self.job.identity.sampler if self.trial.relative_params else "random"

    def _start(self, config: TrainConfig) -> training.Run:
        run = training.start(config, self.job.data, self.job.device)
        self.run_id = self.job.tracker.open_trial(
            self.job.runs, self.label, trial_params(self.job, config, run)
        )
        if self.run_id is not None:
            self._set_attr("mlflow_run_id", self.run_id)
        state = self.checkpoints.load(self.number)
        if state is None:
            return run
        try:
            run.load_state_dict(state)
            log.info("trial %d goes on from %d images", self.number, run.images_seen)
        except StateError as error:  # raised before anything was loaded
            log.warning("trial %d starts afresh: %s", self.number, error)
        return run

    def _record(self, metrics: RungMetrics) -> None:
        """Tell MLflow of a rung; `objective.events` then tells Optuna."""
        self._check_lease()
        self.job.tracker.log_rung(self.run_id, metrics)
        self._set_attr("images_seen", metrics.images_seen)

    def _finish(self, result: Result) -> Outcome:
        self._check_lease()
        self._set_attr("outcome", result.outcome.value)
        self._set_attr("images_seen", self._images_seen())
        if result.diverged is not None:
            self._set_attr("diverged", asdict(result.diverged))
        if result.reason:
            self._set_attr("reason", result.reason)
        state = _OPTUNA_STATES[result.outcome]
        if result.outcome is Outcome.COMPLETE:
            self._finish_complete(result)
        else:
            self.job.tracker.close_trial(self.run_id, result, state)
            self._tell(result)
        self.checkpoints.discard(self.number)
        return result.outcome

    def _finish_complete(self, result: Result) -> None:
        """Keep the weights if this is the best trial so far; one worker decides at a time."""
        assert result.value is not None
        assert self.run_state is not None
        with self.job.weights_locked():
            is_best = (result.value, -self.number) > _best(self.job.study)
            if is_best:
                self.job.tracker.log_weights(self.run_id, self.run_state.weights())
            self.job.tracker.close_trial(self.run_id, result, "COMPLETE")
            self._tell(result)
            if is_best:
                self.job.tracker.drop_weights(self.job.runs, keep=self.run_id)

    def _tell(self, result: Result) -> None:
        try:
            objective.tell(self.trial, result)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError) as error:
            raise LeaseLostError from error

    def _put_back(self) -> None:
        self._check_lease()
        self.job.tracker.put_back(self.run_id)
        self._set_attr("images_seen", self._images_seen())
        slots.release(self.job.store, self.claim)

    def _check_lease(self) -> None:
        if not slots.holds(self.job.store, self.claim):
            raise LeaseLostError

    def _images_seen(self) -> int:
        return self.run_state.images_seen if self.run_state is not None else 0

    def _set_attr(self, key: str, value: Any) -> None:
        self.job.store.storage.set_trial_user_attr(self.claim.trial_id, key, value)


_OPTUNA_STATES = {
    Outcome.COMPLETE: "COMPLETE",
    Outcome.PRUNED: "PRUNED",
    Outcome.DIVERGED: "COMPLETE",
    Outcome.OOM: "COMPLETE",
    Outcome.FAILED: "FAIL",
}


def _best(study: optuna.Study) -> tuple[float, int]:
    """Value and negative number of the best trial: of equal ones the first, as in `Overview`."""
    ranks = [
        (trial.value, -trial.number)
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get("outcome") == Outcome.COMPLETE and trial.value is not None
    ]
    return max(ranks, default=(-1.0, 0))


def _free_memory(run: training.Run | None) -> None:
    if run is not None:
        run.model.to("meta")
        run.optimizer.state.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
