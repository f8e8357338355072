"""The comparison of workers on one store, in small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A folder of scripts, not a package.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

from store_crew import Work
from store_meter import Account, Span, latencies, percentile
from store_objective import accuracy
from store_result import Count, Result

ROOT = Path(__file__).parents[1]
WORKERS, TRIALS = 2, 12


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the script printed and wrote."""
    path = tmp_path_factory.mktemp("bench") / "numbers.json"
    command = [sys.executable, str(ROOT / "bench" / "store.py")]
    command += ["--workers", str(WORKERS), "--trials", str(TRIALS), "--finished", "2"]
    command += ["--sleep-s", "0.01", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


def run_of(measured: tuple[str, dict[str, Any]], kind: str) -> dict[str, Any]:
    (run,) = [run for run in measured[1]["runs"] if run["kind"] == kind]
    return dict(run)


def test_no_trial_is_lost_or_added(measured: tuple[str, dict[str, Any]]) -> None:
    run = run_of(measured, "ours")
    assert run["errors"] == []
    assert (run["ended"], run["lost"], run["surplus"], run["failed"]) == (TRIALS, 0, 0, 0)
    assert f"ours: {TRIALS} of {TRIALS} trials ended, 0 lost, 0 surplus" in measured[0]


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_every_operation_is_timed(kind: str, measured: tuple[str, dict[str, Any]]) -> None:
    run = run_of(measured, kind)
    counts = {latency["operation"]: latency["count"] for latency in run["latencies"]}
    here = run["ended"] - run["before"]
    assert counts["claim"] == counts["sample"] == counts["finish"] == here
    assert counts["report"] >= here
    for latency in run["latencies"]:
        assert 0 < latency["p50_s"] <= latency["p95_s"] <= latency["max_s"]


def test_cpu_time_has_an_owner(measured: tuple[str, dict[str, Any]]) -> None:
    run = run_of(measured, "ours")
    assert sum(run["shares"].values()) == pytest.approx(1.0)
    assert all(share > 0 for share in run["shares"].values())
    assert "most CPU time: " in measured[0]


def test_claims_do_not_wait_for_a_sampling(measured: tuple[str, dict[str, Any]]) -> None:
    assert measured[1]["claim_beside_sampling_p95_s"] < 1.0


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.95) == 4.0
    assert percentile([5.0], 0.5) == 5.0


def test_latencies_keep_operations_apart() -> None:
    spans = [Span("poll", 0.0, 9.0, 0.5, 1), Span("claim", 1.0, 2.0, 0.1, 4)]
    first, second = latencies([*spans, Span("claim", 3.0, 4.0, 0.3, 6)])
    assert (first.operation, second.operation) == ("claim", "poll")
    assert (first.count, first.p50_s, first.max_s) == (2, 2.0, 4.0)
    assert first.cpu_ms == pytest.approx(200.0)
    assert first.statements == 5.0


@pytest.mark.parametrize(
    ("count", "is_cut_off", "lost", "surplus"),
    [
        (Count(ended=20, running=0, failed=0, repeated=0), False, 0, 0),
        (Count(ended=18, running=2, failed=0, repeated=0), False, 2, 0),
        (Count(ended=23, running=0, failed=1, repeated=0), False, 0, 3),
        (Count(ended=9, running=0, failed=0, repeated=0), True, 0, 0),
        (Count(ended=9, running=1, failed=0, repeated=0), True, 1, 0),
    ],
)
def test_lost_and_surplus_trials(count: Count, is_cut_off: bool, lost: int, surplus: int) -> None:
    result = Result("plain", 20, 0, 4, is_cut_off, count, Work((), 0.0, 0.0, 0.0))
    assert (result.lost, result.surplus) == (lost, surplus)


def test_killed_worker_is_an_error(tmp_path: Path) -> None:
    account = Account.read(tmp_path / "none.json")
    assert Work((account,), 0.0, 0.0, 0.0).errors == ["killed"]


def test_account_survives_being_written(tmp_path: Path) -> None:
    account = Account([Span("claim", 1.0, 2.0, 0.1, 4)], 3.0, "Error: no")
    account.write(tmp_path / "0.json")
    assert Account.read(tmp_path / "0.json") == account


def test_accuracy_grows_with_training_and_is_repeatable() -> None:
    assert accuracy(1e-3, 60, 1.0) > accuracy(1e-3, 60, 0.05)
    assert accuracy(1e-3, 60, 0.5) > accuracy(1e-5, 60, 0.5)
    assert accuracy(1e-3, 60, 0.5) == accuracy(1e-3, 60, 0.5)
