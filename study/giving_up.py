"""The end of a trial that kills whoever trains it."""

import logging
from contextlib import suppress

import optuna

from objectives.objective import Result
from objectives.outcome import Outcome
from study import leases, slots
from study.identity import UUID_KEY
from study.leases import Claim, LeaseLostError
from study.recorder import TrialRecorder
from study.spool import Spool
from study.storage import Store
from study.tracking import StudyRuns, TrialLabel

log = logging.getLogger(__name__)


def give_up(
    store: Store, study: optuna.Study, runs: StudyRuns | None, claim: Claim, spool: Spool | None
) -> None:
    """End a claimed trial as failed, with the reason; whoever fills slots replaces it.

    May be repeated. Whoever dies in the middle of this leaves a lease that runs out, and a trial
    as hopeless; nothing is done where another was faster.
    """
    reason = (
        f"{claim.crashes} workers in a row died while they trained it, "
        "without a new checkpoint between"
    )
    log.error("trial %d of '%s' failed: %s", claim.number, study.study_name, reason)
    if spool is not None and runs is not None:
        label = TrialLabel(study.study_name, str(study.user_attrs[UUID_KEY]), claim.number)
        recorder = TrialRecorder(spool, runs, label, claim.trial_id, claim.attempt)
        recorder.close(Result(Outcome.FAILED, None, reason=reason), "FAIL")
    with suppress(LeaseLostError), leases.held(store, claim) as connection:
        told = {"outcome": Outcome.FAILED.value, "reason": reason}
        slots.end_as_failed(connection, claim.trial_id, told)
