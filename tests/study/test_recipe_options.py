"""Recipes as people ask for them: presets, files, fields, and what does not go together."""

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from models.errors import InputError
from models.switches import ViTSwitches, ZooSwitches
from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.recipes import PRESETS, Recipe, preset
from objectives.search_space import SearchSpace
from objectives.searched import Searched
from study.creation import identify
from study.experiment_requests import sweep_of
from study.identity import StudyIdentity
from study.plan import Plan
from study.recipe_checks import check_training, notes
from study.recipe_options import searched_fields, training_of, training_words
from study.request import Request, parse_space
from tests.conftest import SUBSET
from tests.study.results import identity_of


def test_texts_go_before_a_file_and_a_file_before_its_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "deit"\nmixup = 0.2\nflip = 0\ndim = 32\nsync_bn = true\n')
    found = training_of("vitbn", None, file, ["mixup=0.5", "depth=2"])
    expected = replace(preset("deit").recipe, mixup=0.5, flip=0.0, sync_bn=True)
    assert found.recipe == expected
    assert found.switches == ViTSwitches(dim=32, depth=2, drop_path=0.1)
    assert training_of("vitbn", "finetune", file, None).recipe.name == "finetune"


def test_without_a_word_it_is_the_article() -> None:
    found = training_of("vitbn", None, None, None)
    assert (found.recipe, found.switches) == (Recipe(), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mixpu=1", "unknown recipe field or switch 'mixpu'; did you mean 'mixup'"),
        ("mixup=much", "mixup=much must be a number"),
        ("train=some", "train=some is not one of all, head"),
        ("name=mine", "unknown recipe field or switch 'name'"),
        ("mixup", "--set mixup must be NAME=VALUE"),
    ],
)
def test_a_field_that_cannot_be_set_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        training_of("vit", "deit", None, [text])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mixup 0.5", "cannot be read"),
        ("mixup = [0.5]", "mixup must be one value"),
        ("[train]\nmixup = 1", "train must be one value"),
        ("recipe = 'none'", "unknown recipe 'none'"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        training_of("vit", None, tmp_path / "mine.toml", None)
    with pytest.raises(InputError, match="No such file"):
        training_of("vit", None, tmp_path / "other.toml", None)


@pytest.mark.parametrize("name", PRESETS)
def test_a_command_asks_for_the_recipe_again(name: str) -> None:
    changed = replace(PRESETS[name].recipe, train="all", clip=None, weight_decay=0.125)
    switches = ViTSwitches(dim=32, drop_path=0.25)
    words = training_words(changed, switches)
    texts = [word for option, word in pairwise(words) if option == "--set"]
    again = training_of("vitbn", name, None, texts)
    assert (again.recipe, again.switches) == (changed, switches)


def test_a_request_prints_what_it_searches_and_its_target() -> None:
    others = (Searched("weight_decay", 1e-4, 0.3, is_log=True),)
    request = Request(
        model="vitbn", recipe=preset("deit").recipe, space=SearchSpace(others=others), target=0.97
    )
    assert shlex.split(request.command()) == shlex.split(
        "bnvit-study run --model vitbn --trials 20 --target 0.97 "
        "--search weight_decay=log:0.0001:0.3 --recipe deit"
    )
    assert request.study_name == "mnist-vitbn-deit"


def test_a_preset_may_bring_its_batch_size() -> None:
    found = parse_space("vit", "default", None, None, preset("finetune"))
    assert found.batch_size == (512, 512)
    assert parse_space("vit", "default", None, "8:9", preset("finetune")).batch_size == (8, 9)


BASE = Request(model="vitbn")


@pytest.mark.parametrize(
    ("changes", "recipe", "words"),
    [
        ({"model": "vit"}, {"nbs": 8}, "vit has no BatchNorm; leave out nbs"),
        ({}, {"freeze_bn": 4}, "cannot be frozen for more than the 3 epochs of the run"),
        ({"model": "vit"}, {"freeze_bn": 1}, "vit has no BatchNorm; leave out freeze_bn"),
        (
            {"model": "vit", "space": SearchSpace(batch_size=(1, 8))},
            {"mixup": 0.8},
            "batch sizes must start at 2",
        ),
        ({}, {"accumulate": 21}, "divides a batch of 20 into micro-batches"),
        ({}, {"train": "head"}, "linear probe of trained weights; name them with --weights"),
        ({}, {"train": None}, "needs to be told what it trains"),
        ({"target": 97.0}, {}, "--target 97 must be an accuracy"),
        ({}, {"label_smoothing": 1.0}, "label_smoothing=1.0 must be from 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, object], recipe: dict[str, object], words: str
) -> None:
    asked = replace(BASE, recipe=replace(Recipe(), **recipe), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        check_training(asked)
    with pytest.raises(InputError, match=words):
        asked.check()


def test_what_is_done_where_a_recipe_leaves_a_choice_is_said() -> None:
    assert notes(BASE) == []
    ghost = replace(BASE, recipe=Recipe(nbs=16))
    assert "its last ghost batch has the rest" in notes(ghost)[0]
    fixed = replace(ghost, space=SearchSpace(batch_size=(64, 64)))
    assert notes(fixed) == []
    micro = replace(BASE, recipe=Recipe(accumulate=4))
    assert "BatchNorm sees micro-batches" in notes(micro)[0]
    assert notes(replace(micro, model="vit")) == []


def identity_with(**changes: object) -> StudyIdentity:
    return identity_of("vitbn", None, **changes)


def test_searched_values_go_where_they_belong() -> None:
    others = (Searched("mixup", 0.0, 1.0), Searched("dropout", 0.0, 0.5))
    config = identity_with(others=others).config(
        {"lr": 1e-3, "batch_size": 8, "mixup": 0.25, "dropout": 0.125}
    )
    assert config.recipe.mixup == 0.25
    assert config.switches.dropout == 0.125


def test_studies_of_different_recipes_differ_by_the_fields() -> None:
    deit = preset("deit").recipe
    mine, theirs = (identity_with(recipe=replace(deit, mixup=share)) for share in (0.8, 0.2))
    assert mine.differences(theirs) == ["mixup is 0.8, not 0.2"]
    assert identity_with(recipe=deit).title == "vitbn, deit"


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("vitbn", "accumulate=0:4", "--search accumulate=0:4: accumulate=0 must be from 1"),
        ("vitbn", "accumulate=1:16", "fewer than 2 images"),
        ("vitbn", "weight_decay=-1:1", "weight_decay=-1.0 must be from 0"),
        ("vitbn", "dropout=0:1.5", r"dropout=1.5 must lie in \[0, 1\)"),
        ("vitbn", "bn_momentum=0:0.5", "bn_momentum=0.0 must lie in"),
        ("vitbn", "freeze_bn=0:10", "cannot be frozen for more than the 3 epochs"),
        ("vitbn", "train=all,head", "name them with --weights"),
        ("vit", "nbs=8:64", "vit has no BatchNorm; leave out nbs"),
        ("vit", "bn_momentum=0.1:0.5", "vit has no BatchNorm"),
        ("vit", "momentum=0.1:0.5", "momentum is only read with optimizer=sgd"),
    ],
)
def test_a_range_whose_values_do_not_all_do_is_refused(model: str, text: str, words: str) -> None:
    space = SearchSpace(others=searched_fields(model, [text]))
    with pytest.raises(InputError, match=words):
        Request(model=model, space=space).check()


def test_a_range_whose_models_cannot_all_be_built_is_refused() -> None:
    data = load_search_data(dataset(SUBSET, Path()))
    others = searched_fields("vitbn", ["patch_size=4:7"])
    request = Request(model="vitbn", dataset=SUBSET, space=SearchSpace(others=others))
    with pytest.raises(InputError, match="--search patch_size=4:7: patch_size=5 does not divide"):
        identify(request, data)


def test_a_field_that_nothing_reads_is_refused() -> None:
    for text, recipe in (("magnitude", Recipe(magnitude=5)), ("momentum", Recipe(momentum=0.5))):
        with pytest.raises(InputError, match=f"{text} is only read with"):
            check_training(replace(BASE, recipe=recipe))
    check_training(replace(BASE, recipe=replace(preset("deit").recipe, augment="autoaugment")))


def test_what_a_preset_brings_is_no_default_of_the_printed_command() -> None:
    transfer = replace(preset("tiny-transfer").recipe, train="all")
    brought = SearchSpace(batch_size=(128, 128))
    asked = Request("vit", recipe=transfer, epochs=30, image_size=384, space=brought)
    assert shlex.split(asked.command()) == shlex.split(
        "bnvit-study run --model vit --trials 20 --recipe tiny-transfer --set train=all"
    )
    words = replace(asked, epochs=3, space=SearchSpace()).command()
    assert "--epochs 3" in words
    assert "--batch-size 20:120" in words


def test_a_changed_recipe_is_seen_beside_the_model() -> None:
    changed = replace(Recipe(), mixup=0.8, clip=1.0)
    assert identity_with(recipe=changed).title == "vitbn, clip 1.0, mixup 0.8"
    many = replace(changed, label_smoothing=0.1, weight_decay=0.1)
    assert identity_with(recipe=many).title == "vitbn, 4 fields changed"


def test_models_of_two_families_get_each_its_own_switches() -> None:
    plan = Plan("sweep", ((1e-3, 32),), 1, "train")
    names = ["vit", "deit_tiny"]
    found = sweep_of(BASE, names, plan, lambda m: training_of(m, "deit", None, None).switches)
    assert [type(one.switches) for one in found] == [ViTSwitches, ZooSwitches]
    assert [one.switches.drop_path for one in found if one.switches is not None] == [0.1, 0.1]
