"""Which configuration a trial gets, and from which trials that was inferred."""

import logging
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from objectives.search_space import START_POINTS
from study.identity import StudyIdentity
from study.job import Job
from study.plan import Values
from study.samplers import sampler
from study.slots import FIXED_PARAMS
from study.words import ranges

VISIBLE = "visible_trials"  # attribute of a trial: those that its suggestion was inferred from
SUGGESTED_BY = "suggested_by"  # attribute of a trial: start, plan, a sampler, or random

log = logging.getLogger(__name__)


def suggest(job: Job, trial_id: int) -> Values:
    """Values for a trial: those it has already, else the sampler's, made to last at once.

    The caller writes all values at once before the first is used, so that a suggestion which is
    interrupted half-way is never mixed with another.
    """
    trial = job.storage.get_trial(trial_id)
    if not trial.params and not trial.system_attrs.get(FIXED_PARAMS):
        _propose(job, trial, job.storage.picture.memorable())
    elif SUGGESTED_BY not in trial.user_attrs and (given_by := _given_by(job, trial)):
        job.storage.set_trial_user_attr(trial_id, SUGGESTED_BY, given_by)
    return job.identity.space.suggest(optuna.trial.Trial(job.study, trial_id))


def _given_by(job: Job, trial: FrozenTrial) -> str:
    """Who gave a slot its values; empty for those that people enqueued."""
    if job.identity.is_planned:
        return "plan"
    return "start" if trial.number < START_POINTS else ""


class _Snapshot(optuna.Study):
    """A study as it was at one look: a sampler that looks twice sees the same."""

    seen: list[FrozenTrial]

    @classmethod
    def of(cls, study: optuna.Study, seen: list[FrozenTrial]) -> "_Snapshot":
        snapshot = cls.__new__(cls)
        snapshot.__dict__.update(study.__dict__)
        snapshot.seen = seen
        return snapshot

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002  # Optuna's signature
        states: Any = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        return [trial for trial in self.seen if states is None or trial.state in states]


def proposed(
    study: optuna.Study, identity: StudyIdentity, trial: FrozenTrial, seen: list[FrozenTrial]
) -> tuple[Values, str]:
    """The values that the study's sampler infers for `trial` from what it is shown, and by what.

    The same for the same trials; nothing is written.
    """
    snapshot = _Snapshot.of(study, seen)
    snapshot.sampler = sampler(identity, trial.number)
    asked = optuna.trial.Trial(snapshot, trial._trial_id)
    relative = asked.relative_params
    values = {
        name: relative[name]
        if name in relative
        else snapshot.sampler.sample_independent(snapshot, trial, name, distribution)
        for name, distribution in identity.space.distributions().items()
    }
    return values, identity.sampler if relative else "random"


def _propose(job: Job, trial: FrozenTrial, seen: list[FrozenTrial]) -> None:
    values, by = proposed(job.study, job.identity, trial, seen)
    storage = job.storage
    storage.set_trial_user_attr(trial._trial_id, VISIBLE, _visible(seen))
    storage.set_trial_user_attr(trial._trial_id, SUGGESTED_BY, by)
    storage.set_trial_system_attr(trial._trial_id, FIXED_PARAMS, values)


def _visible(seen: list[FrozenTrial]) -> dict[str, str]:
    """Numbers of the trials that a sampler learns from, by what they could tell."""
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    return {
        "finished": ranges(trial.number for trial in seen if trial.state in finished),
        "running": ranges(
            trial.number for trial in seen if trial.state == TrialState.RUNNING and trial.params
        ),
    }
