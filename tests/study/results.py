"""Results of studies made by hand, for what is computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.outcome import Outcome
from study.creation import identify
from study.experiment_requests import planned
from study.identity import StudyIdentity
from study.overview import Overview
from study.plan import Configuration, Plan
from study.request import Request
from study.results import RunResult, StudyResult
from tests.conftest import SUBSET, TINY

GRID: tuple[Configuration, ...] = ((1e-3, 50),)
COMPUTED = {
    "device": "cpu (a processor)",
    "threads": 1,
    "execution": "merged",
    "parameters": 1_000,
    "multiply_adds": 10_000,
    "blocks_executed": 2,
}


def identity_of(model: str, plan: Plan | None, **changes: Any) -> StudyIdentity:
    """The identity of a study of the subset."""
    request = Request(model=model, switches=TINY, dataset=SUBSET, epochs=4, seed=1)
    if plan is not None:
        request = planned(request, plan)
    made = identify(request, load_search_data(dataset(SUBSET, Path())))
    return replace(made, **changes)


def run_of(
    seed: int,
    accuracy: float | None,
    configuration: Configuration = GRID[0],
    curve: Sequence[float] = (0.5, 0.9, 0.98, 0.97),
    **changes: Any,
) -> RunResult:
    """A run that came to its end with this test accuracy; None: it diverged."""
    is_over = accuracy is None
    made = RunResult(
        number=seed,
        lr=configuration[0],
        batch_size=configuration[1],
        seed=seed,
        outcome=Outcome.DIVERGED if is_over else Outcome.COMPLETE,
        value=0.1 if is_over else curve[-1] if curve else accuracy,
        val_accuracy=curve[-1] if curve else None,
        test={} if accuracy is None else {"test_accuracy": accuracy},
        curve=tuple(rung_of(epoch, value) for epoch, value in enumerate(curve, start=1)),
        computed=COMPUTED,
        diverged=None,
        mlflow_run_id=None,
    )
    return replace(made, **changes)


def rung_of(epoch: int, val_accuracy: float) -> Mapping[str, float]:
    """What is kept of a rung, 10 s of training after the one before."""
    return {
        "epoch": float(epoch),
        "val_accuracy": val_accuracy,
        "train_loss": 1.0 / epoch,
        "val_time_s": 0.5,
        "train_time_s": 10.0 * epoch,
    }


def result_of(
    model: str,
    runs: Sequence[RunResult],
    kind: str = "sweep",
    name: str | None = None,
    source: str | None = None,
    **changes: Any,
) -> StudyResult:
    """A study whose runs have ended; a sweep, a fit or a search."""
    configurations = tuple(dict.fromkeys(run.configuration for run in runs))
    plan = None
    if kind != "search":
        seeds = len({run.seed for run in runs})
        plan = Plan(kind, configurations, seeds, "train")  # type: ignore[arg-type]
    identity = identity_of(model, plan, **changes)
    study = optuna.create_study(study_name=name or f"made-{model}")
    seen = Overview(study.study_name, "uuid", identity, (), study)
    return StudyResult(study.study_name, identity, source, tuple(runs), {"torch": "2.13"}, seen)
