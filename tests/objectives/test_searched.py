"""Fields that are searched beside learning rate and batch size."""

from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from models.errors import InputError
from objectives.recipes import field_types
from objectives.search_space import START_POINTS, SearchSpace
from objectives.searched import Searched, searched
from study.recipe_options import searched_fields

DECAY = searched("weight_decay=log:1e-4:0.3", field_types())
REPEATS = searched("repeats=1:3", field_types())
POLICY = searched("augment=none,randaugment", field_types())


@pytest.mark.parametrize("one", [DECAY, REPEATS, POLICY])
def test_a_range_is_told_as_it_was_asked_for(one: Searched) -> None:
    assert searched(str(one), field_types()) == one


def test_ranges_are_those_of_optuna() -> None:
    assert DECAY.distribution() == FloatDistribution(1e-4, 0.3, log=True)
    assert REPEATS.distribution() == IntDistribution(1, 3)
    assert POLICY.distribution() == CategoricalDistribution(("none", "randaugment"))


def test_switches_of_the_model_are_searched_too() -> None:
    assert searched_fields("vitbn", ["dropout=0:0.3", "depth=2:6"]) == (
        Searched("dropout", 0.0, 0.3),
        Searched("depth", 2, 6, is_whole=True),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weight_decay", "must be NAME=LOW:HIGH"),
        ("wieght_decay=0:1", "unknown field 'wieght_decay'; did you mean 'weight_decay'"),
        ("weight_decay=1", "must be LOW:HIGH"),
        ("weight_decay=1:0", "the lower end must come first"),
        ("weight_decay=log:0:1", "a logarithmic range must be positive"),
        ("weight_decay=0:inf", "the lower end must come first"),
        ("repeats=1:2.5", "repeats is a whole number"),
        ("augment=none", "two different choices"),
        ("augment=none,rnadaugment", "'rnadaugment' is not one of none, randaugment, autoaugment"),
        ("teacher=0:1", "teacher is no number"),
        ("sync_bn=0:1", "sync_bn is no number"),
    ],
)
def test_what_cannot_be_searched_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        searched(text, field_types())


def test_a_field_is_searched_once() -> None:
    with pytest.raises(InputError, match="--search names mixup twice"):
        searched_fields("vit", ["mixup=0:1", "mixup=0:0.5"])


def test_start_points_are_spread_over_all_fields() -> None:
    space = replace(SearchSpace(), others=(DECAY, REPEATS, POLICY))
    points = space.starts(0)
    assert len(points) == START_POINTS
    for one in space.others:
        for point in points:
            kind = one.distribution()
            assert kind._contains(kind.to_internal_repr(point[one.name]))
    assert {point["augment"] for point in points} == {"none", "randaugment"}
    assert min(p["weight_decay"] for p in points) < 5e-3 < max(p["weight_decay"] for p in points)


def test_a_trial_gets_a_value_of_each() -> None:
    space = replace(SearchSpace(), others=(DECAY, REPEATS, POLICY))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = space.suggest(study.ask())
    assert set(found) == {"lr", "batch_size", "weight_decay", "repeats", "augment"}
    assert isinstance(found["repeats"], int)
    assert space.distributions()["augment"] == POLICY.distribution()
