"""Many workers on one Postgres: how long each claim, sample, report and end of a trial takes.

    python bench/store.py --workers 64 --trials 20,1000,10000

The workers are the product's own (`study.worker`, `study.attempt`), but sleep where they would
train. Beside them, in the same run and on the same server: plain `study.optimize`.

Hardware: 2 cores, 10 GB of memory for 64 workers.
Expected time: 1 min for `--workers 8 --trials 20,200`; 10,000 trials take 4 min or more, and plain
Optuna takes `--plain-limit-s` for each size at most.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

os.environ["OMP_NUM_THREADS"] = "1"  # a process that forks must not have had other threads
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import optuna
import store_ours
import store_plain
from optuna.trial import TrialState
from rich.console import Console
from sqlalchemy import func, select
from store_claims import TRIALS as CLAIMED_TRIALS
from store_claims import claims_beside_sampling
from store_crew import Server, Work, run_workers, server
from store_history import write_history
from store_meter import Meter
from store_objective import CPU, TINY
from store_result import Count, Result, latency_table

from objectives.data import load_search_data
from objectives.datasets import dataset
from study.counts import trained_of
from study.creation import create_or_resume, identify
from study.request import Request
from study.schema import leases, trials
from study.service import Session
from study.storage import Store, open_store

SUBSET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "mnist-subset"
EPOCHS = 3  # which makes 4 rungs


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=_sizes, default=[20, 1_000, 10_000], help="20,1000,10000")
    parser.add_argument("--sleep-s", type=float, default=0.5, help="of the objective, per rung")
    parser.add_argument("--limit-s", type=float, help="our workers leave after so long")
    parser.add_argument("--plain-limit-s", type=float, default=120.0, help="plain Optuna's do")
    parser.add_argument("--finished", type=int, default=0, help="trials made up beforehand")
    parser.add_argument("--storage", metavar="URL", help="a Postgres; its studies are left there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    return parser.parse_args()


def new_study(host: Server, size: int, finished: int) -> tuple[str, tuple[int, ...]]:
    """A study for our workers; its name and rungs."""
    request = Request(
        model="vit", switches=TINY, dataset=f"idx:{SUBSET}", trials=size, epochs=EPOCHS,
        device="cpu", study=f"bench-{uuid4().hex[:8]}-ours-{size}",
    )  # fmt: skip
    data = load_search_data(dataset(request.dataset, host.settings.data_dir))
    identity = identify(request, data)
    with open_store(host.settings) as store:
        study, _ = create_or_resume(store, identity, request)
        write_history(store, study, identity.rungs, finished)
        counted = trained_of(identity, data.shape)
        session = Session(store, study, identity, request, host.settings, CPU, None, True, counted)
        session.fill(size)
    return request.study_name, identity.rungs


def new_plain_study(host: Server, size: int, finished: int, rungs: tuple[int, ...]) -> str:
    """A study for plain Optuna; its name."""
    name = f"bench-{uuid4().hex[:8]}-plain-{size}"
    with open_store(host.settings) as store:
        study = optuna.create_study(study_name=name, storage=store.storage, direction="maximize")
        write_history(store, study, rungs, finished)
    return name


def compare(args: argparse.Namespace, host: Server, size: int) -> Iterable[Result]:
    """Both kinds of worker on studies of `size` trials, one after the other."""
    finished = min(args.finished, size)
    name, rungs = new_study(host, size, finished)

    def ours(meter: Meter, wait_for_all: Callable[[], None]) -> None:
        store_ours.work(host.settings, name, args.sleep_s, args.limit_s, meter, wait_for_all)

    def result(kind: str, study: str, limit_s: float | None, work: Work) -> Result:
        with open_store(host.settings) as store:
            counted = count(store, study)
        is_cut_off = limit_s is not None and work.lasted_s >= limit_s and counted.ended < size
        return Result(kind, size, finished, args.workers, is_cut_off, counted, work)

    yield result("ours", name, args.limit_s, run_workers(args.workers, ours, host))
    url, limit_s = host.settings.storage_url, args.plain_limit_s
    assert url is not None
    other = new_plain_study(host, size, finished, rungs)

    def plain(meter: Meter, wait_for_all: Callable[[], None]) -> None:
        store_plain.work(url, other, size, rungs, args.sleep_s, limit_s, meter, wait_for_all)

    yield result("plain", other, limit_s, run_workers(args.workers, plain, host))


def count(store: Store, name: str) -> Count:
    """The trials of a study by how they stand."""
    study = optuna.load_study(study_name=name, storage=store.storage)
    mine = trials.c.study_id == study._study_id
    states = select(trials.c.state, func.count()).where(mine).group_by(trials.c.state)
    again = select(func.count()).select_from(
        trials.join(leases, leases.c.trial_id == trials.c.trial_id)
    )
    with store.engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(states)}
        repeated = connection.scalar(again.where(mine, leases.c.attempt > 1)) or 0
    ended = found.get(TrialState.COMPLETE, 0) + found.get(TrialState.PRUNED, 0)
    return Count(ended, found.get(TrialState.RUNNING, 0), found.get(TrialState.FAIL, 0), repeated)


def growth(results: list[Result]) -> str:
    """How our cost per trial grows from the smallest study to the largest."""
    costs = [f"{result.cpu_ms_per_trial:.0f} ms at {result.trials:,}" for result in results]
    return f"CPU per trial, ours: {', '.join(costs)}"


def main() -> int:
    """Measure, print, and write JSON; the exit status is 1 where we lost or added a trial."""
    args, console, results = arguments(), Console(), []
    console.print(f"{args.workers} workers, {args.sleep_s:g} s per rung, {os.cpu_count()} cores")
    with server(args.storage) as host:
        for size in args.trials:
            for result in compare(args, host, size):
                results.append(result)
                console.print(latency_table([result]), *result.lines(), sep="\n", soft_wrap=True)
        alone_s, beside_s = claims_beside_sampling(host, new_study(host, CLAIMED_TRIALS, 0)[0])
    mine = [result for result in results if result.kind == "ours"]
    print(growth(mine))
    print(
        f"claims, p95: {alone_s * 1e3:.1f} ms alone, {beside_s * 1e3:.1f} ms while another worker "
        "samples all the time"
    )
    for miss in [f"{result.trials:,} trials: {m}" for result in mine for m in result.misses]:
        print(f"missed at {miss}")
    if args.json is not None:
        claims = {"claim_alone_p95_s": alone_s, "claim_beside_sampling_p95_s": beside_s}
        numbers = {"runs": [result.as_dict() for result in results], **claims}
        args.json.write_text(json.dumps(numbers, indent=2))
    return int(any(result.lost or result.surplus or result.work.errors for result in mine))


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
