"""Whether claims wait for a sampling: claims of one worker while another samples for seconds."""

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from optuna.samplers import TPESampler
from store_crew import Server, run_workers
from store_meter import Meter, percentile
from store_objective import CPU

from study import slots
from study.docket import Docket
from study.settings import Settings
from study.storage import open_store
from study.suggestion import suggest

CLAIMS = 30
TRIALS = 2 * CLAIMS + 6  # and the start points, and one that is sampled for
LONGEST_S = 60.0  # that the slow sampling lasts


def claims_beside_sampling(host: Server, study: str) -> tuple[float, float]:
    """p95 in seconds of claims alone, and of claims while a sampling lasts."""

    def body(meter: Meter, wait_for_all: Callable[[], None]) -> None:
        wait_for_all()
        _claim_beside_sampling(host.settings, study, meter)

    work = run_workers(1, body, host)
    if work.errors:
        raise RuntimeError(work.errors[0])
    walls: dict[str, list[float]] = {"alone": [], "beside": []}
    for span in work.spans:
        walls[span.operation].append(span.wall_s)
    return percentile(walls["alone"], 0.95), percentile(walls["beside"], 0.95)


def _claim_beside_sampling(settings: Settings, study: str, meter: Meter) -> None:
    samples, may_end = threading.Event(), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        samples.set()
        may_end.wait(LONGEST_S)
        return {}

    with open_store(settings) as store:
        (job,) = Docket(store, settings, CPU, [study]).jobs(at_once=True)

        def claim() -> int:
            found = slots.claim(store, job.study, "claimer")
            assert found is not None, "there are more slots than claims"
            return found.trial_id

        trial_ids = [claim() for _ in range(5)]  # the last one has no start point
        for _ in range(CLAIMS):
            with meter.measuring("alone"):
                claim()
        with patch.object(TPESampler, "sample_relative", slow):
            sampler = threading.Thread(target=suggest, args=(job, trial_ids[-1]), daemon=True)
            sampler.start()
            assert samples.wait(LONGEST_S), "the sampler was not asked"
            for _ in range(CLAIMS):
                with meter.measuring("beside"):
                    claim()
            assert sampler.is_alive(), "the sampling ended before the claims"
            may_end.set()
            sampler.join()
