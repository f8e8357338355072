"""What is concluded from a few pairs: against known values, and by simulation."""

import itertools
from statistics import fmean

import numpy as np
import pytest

from study.statistics import (
    NO_DIFFERENCE,
    TOO_FEW,
    best_of,
    compared,
    detectable,
    mean_interval,
    share_interval,
)


def verdict(a: list[float], b: list[float], family: int = 1) -> str:
    return compared(a, b, family).verdict("better", "worse")


def test_students_interval() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # t of 2 degrees of freedom: 4.303
    assert found.estimate == 2.0
    assert found.half_width == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    with pytest.raises(ValueError, match="two values"):
        mean_interval([1.0])


@pytest.mark.parametrize("count", [3, 5, 10])
def test_intervals_cover_what_they_say(count: int) -> None:
    generator = np.random.default_rng(count)
    samples = [list(sample) for sample in generator.normal(0.5, 1.0, (4_000, count))]
    means = [mean_interval(sample).contains(0.5) for sample in samples]
    assert 0.94 <= fmean(means) <= 0.96
    shares = [compared(sample, [0.0] * count).p_better for sample in samples[:1_000]]
    assert 0.93 <= fmean(share.contains(0.691462) for share in shares) <= 0.97


@pytest.mark.parametrize("count", [3, 5, 10])
def test_shares_are_covered_on_average(count: int) -> None:
    shares = (np.arange(2_000) + 0.5) / 2_000
    hits = np.random.default_rng(count).binomial(count, shares)
    known = [share_interval(hit, count) for hit in range(count + 1)]
    covered = [known[hit].contains(share) for share, hit in zip(shares, hits, strict=True)]
    assert 0.93 <= fmean(covered) <= 0.97
    assert known[0].low == 0.0
    assert known[-1].high == 1.0


def test_a_verdict_is_what_the_interval_says() -> None:
    base = [0.970, 0.972, 0.968, 0.971, 0.969]
    noise = [0.001, -0.001, 0.0005, 0.0, -0.0005]
    assert verdict([x + 0.01 + e for x, e in zip(base, noise, strict=True)], base) == "better"
    assert verdict(base, [x + 0.01 + e for x, e in zip(base, noise, strict=True)]) == "worse"
    assert verdict([x + e for x, e in zip(base, noise, strict=True)], base) == NO_DIFFERENCE
    assert verdict(base[:4], [0.0] * 4) == TOO_FEW


def test_pairing_removes_what_the_seeds_have_in_common() -> None:
    seeds = [0.90, 0.95, 0.85, 0.99, 0.80]
    assert verdict([seed + 0.01 for seed in seeds], seeds) == "better"
    assert verdict([seed + 0.01 for seed in seeds], seeds[::-1]) == NO_DIFFERENCE


def test_more_comparisons_make_wider_intervals_that_hold_together() -> None:
    a, b = [1.1, 1.2, 1.1, 1.3, 1.01], [1.0, 1.0, 1.0, 1.0, 1.0]
    assert verdict(a, b) == "better"
    assert verdict(a, b, family=5) == NO_DIFFERENCE
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        values = generator.normal(0, 1, (5, 5))
        wrong += any(
            compared(list(row), [0.0] * 5, 5).difference.contains(0.0) is False for row in values
        )
    assert wrong / 200 <= 0.08


def test_the_smallest_difference_that_is_shown_is_shown_four_times_in_five() -> None:
    for count in (5, 10):
        effect = detectable(1.0, count)
        samples = np.random.default_rng(count).normal(effect, 1.0, (2_000, count))
        shown = fmean(mean_interval(list(sample)).low > 0 for sample in samples)
        assert 0.77 <= shown <= 0.83
    assert detectable(0.0, 5) == 0.0


def test_equal_runs_are_no_difference_and_a_constant_one_is_certain() -> None:
    same = compared([0.5] * 5, [0.5] * 5)
    assert same.verdict("better", "worse") == NO_DIFFERENCE
    assert (same.won, same.p_better.low, same.p_better.high) == (2.5, 0.0, 1.0)
    above = compared([0.6] * 5, [0.5] * 5)
    assert above.p_better.estimate == 1.0
    assert above.verdict("better", "worse") == "better"


def test_far_apart_runs_do_not_overflow() -> None:
    found = compared([1e6 + x for x in (1.0, 1.1, 0.9, 1.0, 1.05)], [0.0] * 5)
    assert found.p_better.low > 0.99


def test_best_of_k_is_the_mean_over_all_choices() -> None:
    values = [0.3, 0.9, 0.5, 0.7, 0.5]
    for k in range(1, 6):
        expected = fmean(max(chosen) for chosen in itertools.combinations(values, k))
        assert best_of(values, k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="from 1 to 5"):
        best_of(values, 6)
