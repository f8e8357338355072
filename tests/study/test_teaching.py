"""What the command line says of teachers and of transfer, and what a study keeps of it."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import typer.testing

from models.errors import InputError
from models.switches import ImageShape, ZooSwitches
from models.torchvision_import import timm_module
from objectives import card
from objectives.data import SearchData
from objectives.recipes import Recipe
from objectives.search_space import SearchSpace
from objectives.searched import Searched
from objectives.starting import start
from objectives.teacher import load_teacher, teacher_source
from study import entry
from study.counts import trained_of
from study.creation import identify
from study.identity import IDENTITY_KEY, StudyIdentity, identity_of
from study.recipe_checks import notes
from study.report_methods import environment
from study.request import Request
from study.tabular import Tabular
from tests.conftest import CPU, SUBSET, TINY
from tests.objectives.tiny import new_run
from tests.study.results import COMPUTED, result_of, run_of

TWO_HEADS = "deit_base_distilled"
SMALL = ZooSwitches(dim=16, depth="2", heads=2)
HARD = Recipe(teacher="t.pt", distillation="hard")

Asked = Callable[[str], list[Request]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The requests that a command line makes, which is not carried out."""
    found: list[Request] = []
    monkeypatch.setattr("study.conduct.conducted", lambda requests, *_: found.extend(requests))

    def made(line: str) -> list[Request]:
        found.clear()
        app = vars(entry)["app"]
        ended = typer.testing.CliRunner().invoke(app, shlex.split(line))
        if ended.exception is not None:
            raise ended.exception
        for request in found:
            request.check()
        return list(found)

    return made


@pytest.fixture
def teacher(subset: SearchData, tmp_path: Path) -> Path:
    """A file of a model for the subset that knows nothing."""
    run = new_run(subset, model="vit")
    card.save(tmp_path / "t.safetensors", run.weights(), run.card)
    return tmp_path / "t.safetensors"


@pytest.mark.parametrize(
    "line",
    [
        "run --model vit --teacher t.pt",
        "fit --model vit --lr 1e-3 --batch-size 50 --on train --teacher t.pt",
        "sweep --models vit,vitbn --teacher t.pt",
        "run --model vit --set teacher=t.pt",
    ],
)
def test_a_teacher_teaches_hard_unless_told_otherwise(asked: Asked, line: str) -> None:
    for request in asked(line):
        assert request.recipe == HARD
    for request in asked(f"{line} --set distillation=soft --set tau=2 --set alpha=0.1"):
        assert request.recipe == Recipe(teacher="t.pt", distillation="soft", tau=2.0, alpha=0.1)
        again = asked(request.command().removeprefix("bnvit-study "))
        assert request in again


def test_batch_sizes_of_deit_b_distilled_are_swept_from_scratch_and_by_transfer(
    asked: Asked,
) -> None:
    line = f"sweep --models {TWO_HEADS},{TWO_HEADS}_bn --batch-size 32,64,128 --lr 1e-4"
    scratch = asked(f"{line} --teacher t.pt --recipe deit")
    assert [one.model for one in scratch] == [TWO_HEADS, f"{TWO_HEADS}_bn"]
    assert scratch[0].recipe.teacher == "t.pt"
    assert scratch[0].plan is not None
    transfer = asked(f"{line} --weights w.pt --new-head --image-size 384 --set train=head")
    assert [(one.weights, one.new_head) for one in transfer] == [("w.pt", True)] * 2
    assert "--weights w.pt" in transfer[0].command()
    assert "--new-head" in transfer[0].command()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": Recipe(distillation="soft")}, "distillation is about a teacher; name one with"),
        ({"recipe": Recipe(tau=5.0)}, "tau is about a teacher; name one with --teacher"),
        (
            {"space": SearchSpace(others=(Searched("alpha", 0.1, 0.9),))},
            "alpha is about a teacher; name one with --teacher",
        ),
        ({"recipe": Recipe(teacher="t.pt")}, "distillation=none has no use for a teacher"),
        (
            {"model": TWO_HEADS, "recipe": replace(HARD, alpha=1.0)},
            "alpha=1 would train one head of two",
        ),
        ({"recipe": Recipe(train="head")}, "train=head is a linear probe of trained weights"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        replace(Request(model="vit"), **changes).check()
    assert "\n" not in str(refused.value)


def test_the_recipe_of_a_search_is_not_told_again(asked: Asked) -> None:
    with pytest.raises(InputError, match="leave out --recipe, --config, --set, --teacher"):
        asked("fit mnist-vit --on train --teacher t.pt")


def test_the_opening_says_which_head_learns_what() -> None:
    def told(model: str, recipe: Recipe) -> str:
        return "\n".join(notes(Request(model=model, recipe=recipe)))

    assert told("vit", Recipe()) == ""
    assert "both heads learn from the labels" in told(f"{TWO_HEADS}_bn", Recipe())
    assert "both heads" in told("timm:deit_tiny_distilled_patch16_224", Recipe())
    assert "the other from t.pt, hard, weight 0.5" in told(TWO_HEADS, HARD)
    soft = Recipe(teacher="t.pt", distillation="soft")
    assert "one head learns from the labels and from t.pt, soft" in told("vit", soft)
    assert "temperature 3" in told("vit", soft)
    assert soft.marks == ["soft distillation"]


def identified(subset: SearchData, teacher: Path | None, **changes: Any) -> StudyIdentity:
    """The identity of a study of the subset with this teacher."""
    recipe = Recipe() if teacher is None else Recipe(teacher=str(teacher), distillation="hard")
    request = Request(model="vitbn", dataset=SUBSET, switches=TINY, recipe=recipe)
    return identify(replace(request, **changes), subset)


def test_a_study_is_of_one_teacher_wherever_that_lies(
    subset: SearchData, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(teacher.parent)
    mine = identified(subset, Path(teacher.name))
    assert mine.recipe.teacher == str(teacher)
    assert mine.teacher_checksum == load_teacher(str(teacher)).checksum
    moved = teacher.rename(teacher.with_name("moved.safetensors"))
    assert mine.differences(identified(subset, moved)) == []
    known, model = card.load(moved)
    with torch.no_grad():
        model.get_parameter("mlp_head.bias").add_(1.0)
    card.save(teacher, model.state_dict(), known)
    other = identified(subset, teacher)
    (line,) = mine.differences(other)
    assert line.startswith("teacher_checksum is ")
    assert any("teacher" in line for line in mine.differences(identified(subset, None)))
    config = mine.config({"lr": 1e-3, "batch_size": 20})
    with pytest.raises(InputError, match="is not the teacher that the study was begun with"):
        start(config, subset, CPU)
    start(replace(config, teacher_checksum=other.teacher_checksum), subset, CPU)


def test_studies_that_know_no_teacher_are_still_read(subset: SearchData) -> None:
    mine = identified(subset, None)
    stored = json.loads(json.dumps(mine.as_dict()))
    del stored["teacher_checksum"]
    study = optuna.create_study()
    study.set_user_attr(IDENTITY_KEY, stored)
    assert identity_of(study) == mine


def test_a_teacher_that_is_not_to_be_had_is_told(
    subset: SearchData, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.save(card.load(teacher)[1].state_dict(), tmp_path / "bare.pt")
    for source, message in (
        ("timm:deit_gigantic", "timm has no model 'deit_gigantic'"),
        ("timm:resnet10t.c3_in1k", "the weights timm:resnet10t.c3_in1k cannot be downloaded"),
        (str(tmp_path / "missing.pt"), "there is no file"),
        (str(tmp_path / "bare.pt"), "does not say which model it is of"),
    ):
        recipe = Recipe(teacher=source, distillation="soft")
        with pytest.raises(InputError, match=message) as refused:
            identified(subset, None, recipe=recipe)
        assert "\n" not in str(refused.value)
    halved = replace(subset, shape=replace(subset.shape, classes=5))
    with pytest.raises(InputError, match="the teacher is for 10 classes, the data have 5"):
        identified(halved, teacher)


def test_timms_teachers_scale_pixels_as_they_were_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm_module("models").create_model
    monkeypatch.setattr("objectives.teacher.pretrained", create)
    found = load_teacher(teacher_source("timm:mobilenetv3_small_050"))
    assert found.mean == (0.485, 0.456, 0.406)
    assert not found.model.training
    found.check(ImageShape(3, 96, 1000))  # a convolution takes any size
    with pytest.raises(InputError, match="the teacher is for 3 channels, the data have 1"):
        found.check(ImageShape(1, 96, 1000))
    with torch.device("meta"):
        fixed = create("vit_tiny_patch16_224", depth=1)
    monkeypatch.setattr("objectives.teacher.weights_checksum", lambda _: "")
    monkeypatch.setattr("objectives.teacher.pretrained", lambda _: fixed)
    with pytest.raises(InputError, match="the teacher is for 224 pixels along each side"):
        load_teacher("timm:any").check(ImageShape(3, 96, 1000))


def test_the_opening_counts_what_is_trained(subset: SearchData) -> None:
    whole = identified(subset, None, switches=None)
    assert str(trained_of(whole, subset.shape)) == "all 893,932 parameters"
    probe = replace(whole, recipe=Recipe(train="head"))
    told = "650 of 893,932 parameters (a linear probe)"
    assert str(trained_of(probe, subset.shape)) == told
    distilled = identified(subset, None, model=TWO_HEADS, switches=SMALL)
    both = trained_of(replace(distilled, recipe=Recipe(train="head")), subset.shape)
    assert both.trained == 2 * (16 * 10 + 10)


def test_reports_say_how_many_parameters_were_trained() -> None:
    computed = {**COMPUTED, "trained_parameters": 650}
    results = [
        result_of("vit", [run_of(1, 0.9, computed=computed)]),
        result_of("vitbn", [run_of(1, 0.9)]),  # of a version that did not say it
    ]
    table = environment(results).blocks[0]
    assert isinstance(table, Tabular)
    column = table.headings.index("trained")
    assert [row[column] for row in table.rows] == ["650", ""]
