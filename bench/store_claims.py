"""Whether claims wait for a sampling: claims of one worker while another samples for seconds."""

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from optuna.samplers import TPESampler
from store_crew import Server, run_workers
from store_meter import Meter, percentile
from store_objective import CPU, sleeping_train
from store_ours import SleepingAttempt

from objectives import objective
from objectives.search_space import START_POINTS
from study import slots
from study.docket import Docket
from study.leases import Claim
from study.patience import Patience
from study.settings import Settings
from study.stop import Stop
from study.storage import open_store
from study.workplace import workplace

CLAIMS = 30
TRIALS = START_POINTS + 1 + 2 * CLAIMS
LONGEST_S = 60.0  # that the slow sampling lasts


def claims_beside_sampling(host: Server, study: str) -> tuple[float, float]:
    """p95 in seconds of claims alone, and of claims while a sampling lasts."""

    def body(meter: Meter, wait_for_all: Callable[[], None]) -> None:
        wait_for_all()
        _claim_beside_sampling(host.settings, study, meter)

    work = run_workers(1, body, host)
    if work.errors:
        raise RuntimeError(work.errors[0])
    alone, beside = (
        percentile([span.wall_s for span in work.spans if span.operation == name], 0.95)
        for name in ("alone", "beside")
    )
    return alone, beside


def _claim_beside_sampling(settings: Settings, study: str, meter: Meter) -> None:
    samples, may_end = threading.Event(), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        samples.set()
        may_end.wait(LONGEST_S)
        return {}

    with (
        open_store(settings) as store,
        workplace(store, settings, CPU, Patience(settings.store_patience_s, Stop())) as hands,
        patch.object(objective, "train", sleeping_train(0.0)),
        patch.object(TPESampler, "sample_relative", slow),
    ):
        (job,) = Docket(store, settings, CPU, [study]).jobs(at_once=True)

        def claim(operation: str = "") -> Claim:
            with meter.measuring(operation):
                found = slots.claim(store, job.study, uuid4().hex)  # each by another worker
            assert found is not None, "there are more slots than claims"
            return found

        for _ in range(START_POINTS):
            claim()  # no sampler is asked for them
        attempt = SleepingAttempt(job, claim(), hands, meter)
        for _ in range(CLAIMS):
            claim("alone")
        training = threading.Thread(target=attempt.run, daemon=True)
        training.start()
        assert samples.wait(LONGEST_S), "the sampler was not asked"
        for _ in range(CLAIMS):
            claim("beside")
        assert training.is_alive(), "the sampling ended before the claims"
        may_end.set()
        training.join()
