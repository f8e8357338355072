"""Intervals of medians: exact where order statistics are, interpolated between."""

import numpy as np
import pytest

from objectives.intervals import Interval, median_interval


def test_it_lies_between_the_order_statistics_of_known_coverage() -> None:
    # Of 10 values the 2nd and the 9th cover 97.9 %, the 3rd and the 8th 89.1 %.
    found = median_interval(list(range(1, 11)))
    assert found.estimate == 5.5
    assert 2 < found.low < 3
    assert 8 < found.high < 9
    assert found.low - 2 == pytest.approx(9 - found.high)


def test_it_covers_what_it_says_whatever_the_distribution() -> None:
    generator = np.random.default_rng(0)
    medians = {"standard_normal": 0.0, "standard_cauchy": 0.0, "standard_exponential": np.log(2)}
    for name, median in medians.items():
        draws: list[list[float]] = getattr(generator, name)((3_000, 15)).tolist()
        hits = [median_interval(draw).contains(median) for draw in draws]
        assert 0.935 <= np.mean(hits) <= 0.965


def test_it_does_not_depend_on_the_order() -> None:
    values = [3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0]
    assert median_interval(values) == median_interval(sorted(values))


@pytest.mark.parametrize(("count", "level"), [(5, 0.95), (6, 0.99), (0, 0.95)])
def test_too_few_values_are_refused(count: int, level: float) -> None:
    with pytest.raises(ValueError, match=f"{count} values are too few"):
        median_interval(list(range(count)), level)


def test_an_interval_knows_its_inside() -> None:
    found = Interval(1.0, 0.5, 2.0)
    assert found.contains(0.5)
    assert not found.contains(2.1)
    assert found.half_width == 0.75
