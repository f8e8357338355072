"""The space that is searched: what is refused, and where the search starts."""

import math

import optuna
import pytest

from models.errors import InputError
from models.registry import ARTICLE, variant
from objectives.search_space import START_POINTS, SearchSpace, article_space

Ranges = dict[str, tuple[float, float]]


def check(space: SearchSpace, model: str, train_images: int) -> None:
    space.check(variant(model))
    space.check_fits(train_images)


@pytest.mark.parametrize("model", ARTICLE)
def test_the_default_space_is_the_same_for_all_models(model: str) -> None:
    check(SearchSpace(), model, 120)
    assert SearchSpace() == SearchSpace(lr=(1e-5, 1e-2), batch_size=(20, 120))


@pytest.mark.parametrize(
    ("lr", "named"),
    [
        ((1e-2, 1e-5), "0.01:1e-05"),
        ((0.0, 1e-2), "0:0.01"),
        ((-1e-3, 1e-2), "-0.001:0.01"),
        ((1e-5, math.inf), "1e-05:inf"),
        ((math.nan, 1e-2), "nan:0.01"),
    ],
)
def test_a_bad_learning_rate_range_is_refused(lr: tuple[float, float], named: str) -> None:
    with pytest.raises(InputError) as refused:
        check(SearchSpace(lr=lr), "vit", 1_000)
    expected = f"lr range {named} must be positive, the lower end first"
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("model", "batch_size", "expected"),
    [
        ("vit", (64, 32), "batch-size range 64:32 is reversed; write 32:64"),
        ("vit", (0, 32), "batch-size range 0:32 must start at 1"),
        ("vit", (-4, 32), "batch-size range -4:32 must start at 1"),
        ("vitbn", (1, 32), "batch-size range 1:32 must start at 2 (BatchNorm needs two images)"),
        ("vitbnffn", (1, 1), "batch-size range 1:1 must start at 2 (BatchNorm needs two images)"),
        ("vit", (20, 1_001), "batch-size range 20:1001 exceeds the 1000 training images"),
    ],
)
def test_a_bad_batch_size_range_is_refused(
    model: str, batch_size: tuple[int, int], expected: str
) -> None:
    with pytest.raises(InputError) as refused:
        check(SearchSpace(batch_size=batch_size), model, 1_000)
    assert str(refused.value) == expected


def test_ranges_may_be_as_wide_as_the_data_and_as_narrow_as_a_point() -> None:
    check(SearchSpace(lr=(1e-3, 1e-3), batch_size=(1, 1_000)), "vit", 1_000)
    check(SearchSpace(lr=(1e-3, 1e-3), batch_size=(2, 2)), "vitbn", 2)


def half_counts(values: list[float], low: float, high: float) -> tuple[int, int]:
    """How many of `values` lie in the lower and in the upper half of a range."""
    lower = sum(value < (low + high) / 2 for value in values)
    return lower, len(values) - lower


@pytest.mark.parametrize("seed", range(20))
def test_the_start_points_are_spread_over_the_space(seed: int) -> None:
    space = SearchSpace()
    points = space.starts(seed)
    assert len(points) == START_POINTS == 4
    assert all(space.lr[0] <= point["lr"] <= space.lr[1] for point in points)
    assert all(20 <= point["batch_size"] <= 120 for point in points)
    assert all(isinstance(point["batch_size"], int) for point in points)

    logs = [math.log(point["lr"]) for point in points]
    assert half_counts(logs, math.log(1e-5), math.log(1e-2)) == (2, 2)
    sizes = [float(point["batch_size"]) for point in points]
    assert half_counts(sizes, 20, 121) == (2, 2)


def test_the_start_points_follow_from_the_seed() -> None:
    assert SearchSpace().starts(3) == SearchSpace().starts(3)
    assert SearchSpace().starts(3) != SearchSpace().starts(4)


def test_a_space_of_one_point_starts_there() -> None:
    point = SearchSpace(lr=(1e-3, 1e-3), batch_size=(32, 32))
    assert point.starts(0) == [{"lr": 1e-3, "batch_size": 32}] * 4


def test_start_points_are_accepted_by_the_search() -> None:
    space = SearchSpace()
    study = optuna.create_study()
    for point in space.starts(0):
        study.enqueue_trial(point)
        assert space.suggest(study.ask()) == point


def test_suggestions_lie_in_the_space_and_learning_rates_are_spread_by_their_logarithm() -> None:
    space = SearchSpace(batch_size=(20, 22))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = [space.suggest(study.ask()) for _ in range(200)]
    assert {value["batch_size"] for value in values} == {20, 21, 22}
    rates = [float(value["lr"]) for value in values]
    assert 1e-5 <= min(rates) <= max(rates) <= 1e-2
    assert 70 < sum(rate < math.sqrt(1e-5 * 1e-2) for rate in rates) < 130


def test_a_trial_keeps_the_values_that_it_has() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    values = SearchSpace().suggest(trial)
    again = optuna.trial.Trial(study, trial._trial_id)  # as another worker takes it over
    assert SearchSpace().suggest(again) == values


@pytest.mark.parametrize(("model", "end"), [("vit", 1e-3), ("vitbn", 1e-2), ("vitbnffn", 1e-2)])
def test_the_article_gave_its_models_unequal_spaces(model: str, end: float) -> None:
    assert article_space(model) == SearchSpace(lr=(1e-5, end), batch_size=(20, 120))
