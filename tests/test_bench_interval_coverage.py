"""A model against itself, as recorded: are verdicts wrong as rarely, right as often, as said?"""

import json
import sys
from pathlib import Path

import pytest

# A folder of scripts, not a package.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

import interval_coverage as bench

TOLD = json.loads(bench.RECORD.read_text())
RACES = TOLD["speed"]["races"]
ACCURACIES = TOLD["accuracy"]["test_accuracies"]


def test_a_model_against_itself_is_claimed_to_differ_in_speed_as_rarely_as_said() -> None:
    assert len(RACES) >= 200
    claims = bench.speed_claims(RACES)
    wrong = sum(claim != "none" for claim in claims) / len(claims)
    assert 0.035 <= wrong <= 0.065


@pytest.mark.parametrize("pairs", [5, 10])
def test_a_model_against_itself_is_claimed_to_differ_in_accuracy_as_rarely_as_said(
    pairs: int,
) -> None:
    assert len(ACCURACIES) >= 200
    assert 0.035 <= bench.accuracy_claims(ACCURACIES, pairs) <= 0.065


def test_a_slowdown_of_a_tenth_is_found() -> None:
    claims = bench.speed_claims(RACES, bench.PLANTED)
    assert sum(claim == "slower" for claim in claims) / len(claims) >= 0.95


def test_the_page_tells_of_the_record() -> None:
    page = (bench.ROOT / "docs" / "results" / "coverage.md").read_text()
    assert f"| {len(RACES)} races |" in page
    assert f"from {len(ACCURACIES)} runs" in page
    assert all(part["date"] in page for part in TOLD.values())
