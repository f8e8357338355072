"""Recipes: what presets say, what is refused, and that each is resumed bit for bit."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from models.errors import InputError
from objectives.data import SearchData
from objectives.errors import StateError
from objectives.metrics import Pause
from objectives.recipes import PRESETS, Recipe, choices, field_types, preset, stored_recipe
from objectives.training import train
from tests.objectives.test_restore import through_a_file
from tests.objectives.tiny import DROPOUT, new_run, untimed

BEYOND = {  # what no preset uses
    "ghost": Recipe(nbs=6),
    "frozen": Recipe(freeze_bn=0.15),
    "averaged": Recipe(ema=0.9, freeze_bn=0.15),
    "checkpointed": Recipe(checkpointing=True),
    "autoaugment": Recipe(augment="autoaugment", crop=2),
}
RECIPES = {name: replace(one.recipe, train="all") for name, one in PRESETS.items()} | BEYOND


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in RECIPES), ("article", "fp16"), ("deit", "fp16")],
)
def test_a_restored_run_of_any_recipe_goes_on_bit_for_bit(
    name: str, precision: str, subset: SearchData
) -> None:
    changes = {"recipe": RECIPES[name], "switches": DROPOUT, "precision": precision}
    whole = new_run(subset, **changes)
    curve = [untimed(event) for event in train(whole)]

    begun, restored = (new_run(subset, **changes) for _ in range(2))
    for event in train(begun, lambda: begun.images_seen in (80, 160)):
        if isinstance(event, Pause) and event.images_seen == 160:
            break
    state = through_a_file(begun)
    torch.manual_seed(1234)
    restored.load_state_dict(state)
    rest = [untimed(event) for event in train(restored)]
    assert rest == curve[2:]
    whole_state, restored_state = (run.state_dict() for run in (whole, restored))
    for key in ("model", "optimizer", "ema", "scaler", "rng"):
        torch.testing.assert_close(restored_state[key], whole_state[key], rtol=0.0, atol=0.0)


def test_the_presets_are_as_published() -> None:
    deit = preset("deit")
    assert deit.switches == {"drop_path": 0.1, "dropout": 0.0}
    published = {
        "optimizer": "adamw", "weight_decay": 0.05, "lr_batch": 512, "schedule": "cosine",
        "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "erasing": 0.25, "repeats": 3,
        "ema": 0.99996, "init": "trunc_normal", "augment": "randaugment",
    }  # fmt: skip
    assert published.items() <= asdict(deit.recipe).items()
    levels = {
        name.removeprefix("augreg-"): (one.recipe.augment != "none", one.recipe.mixup)
        for name, one in PRESETS.items()
        if name.startswith("augreg-")
    }
    assert levels == {
        "none": (False, 0.0), "light1": (True, 0.0), "light2": (True, 0.2),
        "medium1": (True, 0.2), "medium2": (True, 0.5), "strong1": (True, 0.5),
        "strong2": (True, 0.8),
    }  # fmt: skip
    assert all(one.recipe.clip == 1.0 for name, one in PRESETS.items() if "augreg" in name)
    assert preset("finetune").batch_size == 512
    tiny = preset("tiny-transfer")
    assert (tiny.image_size, tiny.epochs, tiny.batch_size) == (384, 30, 128)


def test_a_preset_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="unknown recipe 'diet'; did you mean 'deit'"):
        preset("diet")


def test_what_a_probe_trains_has_to_be_said() -> None:
    with pytest.raises(InputError, match="tiny-transfer needs to be told what it trains"):
        preset("tiny-transfer").recipe.check()
    replace(preset("tiny-transfer").recipe, train="head").check()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ema", 1.0, "ema=1.0 must be from 0 to 1"),
        ("mixup", -0.1, "mixup=-0.1 must be from 0"),
        ("accumulate", 0, "accumulate=0 must be from 1"),
        ("magnitude", 31, "magnitude=31 must be from 0 to 30"),
        ("clip", 0.0, "clip=0.0 must be from"),
        ("weight_decay", float("nan"), "weight_decay=nan must be from 0"),
    ],
)
def test_a_value_out_of_its_range_is_refused(field: str, value: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(Recipe(), **{field: value}).check()  # type: ignore[arg-type]


def test_a_recipe_says_what_was_changed() -> None:
    assert str(replace(preset("deit").recipe, flip=0.0)) == "deit flip=0.0"
    assert replace(preset("finetune").recipe, train="head", nbs=8).marks == [
        "finetune", "linear probe", "NBS 8",
    ]  # fmt: skip
    assert Recipe().marks == []


def test_a_study_of_an_earlier_version_has_the_recipe_of_the_article() -> None:
    assert stored_recipe("article") == Recipe()
    recipe = preset("deit").recipe
    assert stored_recipe(asdict(recipe)) == recipe


def test_the_choices_of_a_field_are_known() -> None:
    kinds = field_types()
    assert choices(kinds["train"]) == ("all", "head")
    assert choices(kinds["mixup"]) == ()
    assert "name" not in kinds


def as_before(state: dict[str, Any]) -> dict[str, Any]:
    """A state as the version before recipes saved it."""
    config = dict(state["config"], recipe="article")
    config["switches"] = {k: v for k, v in config["switches"].items() if k != "drop_path"}
    for name in ("target", "teacher_checksum"):
        del config[name]
    unknown = ("scaler", "ema", "is_frozen", "peak_bytes", "processes")
    return {**{k: v for k, v in state.items() if k not in unknown}, "config": config}


def test_a_run_that_an_earlier_version_saved_goes_on(subset: SearchData) -> None:
    whole = new_run(subset)
    curve = [untimed(event) for event in train(whole)]
    begun, restored = new_run(subset), new_run(subset)
    next(train(begun))
    restored.load_state_dict(as_before(through_a_file(begun)))
    assert [untimed(event) for event in train(restored)] == curve[1:]
    with pytest.raises(StateError, match="another config"):
        new_run(subset, recipe=Recipe(clip=1.0)).load_state_dict(as_before(through_a_file(begun)))


def test_averaged_weights_stand_behind_the_statistics_that_were_frozen(subset: SearchData) -> None:
    run = new_run(subset, recipe=Recipe(ema=0.9, freeze_bn=0.15), rungs=(200, 400))
    list(train(run))
    assert run.is_frozen
    with run.judged() as judged:
        for mine, its in zip(run.model.buffers(), judged.buffers(), strict=True):
            torch.testing.assert_close(mine, its, rtol=0.0, atol=0.0)
        mine, its = (m.state_dict()["mlp_head.weight"] for m in (run.model, judged))
        assert not torch.equal(mine, its)
