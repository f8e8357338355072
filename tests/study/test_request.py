"""Parsing what `run` is asked for, and printing it back."""

import shlex

import pytest

from models.errors import InputError
from models.switches import ViTSwitches
from objectives.search_space import SearchSpace
from study.request import Request, default_pruner, parse_space, parse_workers


def test_the_space_is_read_from_its_texts() -> None:
    assert parse_space("vit", "default", None, None) == SearchSpace()
    assert parse_space("vit", "default", "1e-4:0.1", "8:16") == SearchSpace((1e-4, 0.1), (8, 16))
    assert parse_space("vit", "article", None, None).lr == (1e-5, 1e-3)
    assert parse_space("vitbn", "article", None, "8:16") == SearchSpace((1e-5, 1e-2), (8, 16))


@pytest.mark.parametrize(
    ("name", "lr", "batch_size", "named"),
    [
        ("default", "0.1", None, "--lr 0.1 must be LOW:HIGH"),
        ("default", "a:b", None, "--lr a:b must be LOW:HIGH"),
        ("default", "nan:1", None, "--lr nan:1 must be LOW:HIGH"),
        ("default", None, "1:2:3", "--batch-size 1:2:3 must be LOW:HIGH"),
        ("default", None, "1.5:20", "--batch-size 1.5:20 must be whole numbers"),
        ("blog", None, None, "unknown space 'blog'; known: default, article"),
        ("article", "1e-4:1e-2", None, "leave out --lr"),
    ],
)
def test_a_space_that_cannot_be_read_is_refused(
    name: str, lr: str | None, batch_size: str | None, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        parse_space("vit", name, lr, batch_size)


def test_a_request_prints_the_command_that_asks_for_it() -> None:
    request = Request(
        model="vitbn",
        switches=ViTSwitches(pool="mean", dropout=0.1),
        trials=7,
        epochs=1,
        space=SearchSpace(lr=(1e-4, 1e-2)),
        seed=3,
        train_images=500,
    )
    assert shlex.split(request.command(fresh=True)) == shlex.split(
        "bnvit-study run --model vitbn --trials 7 --epochs 1 --seed 3 --train-images 500 "
        "--lr 0.0001:0.01 --set pool=mean --set dropout=0.1 --fresh"
    )


def test_the_printed_command_leads_to_the_same_store_without_its_password() -> None:
    request = Request(
        model="vit",
        device="cpu",
        storage="postgresql://me:secret@host/optuna",
        mlflow="http://host:5000",
    )
    assert shlex.split(request.command()) == shlex.split(
        "bnvit-study run --model vit --trials 20 --device cpu "
        "--storage 'postgresql://me:***@host/optuna' --mlflow http://host:5000"
    )


def test_the_number_of_workers_is_whole_or_auto() -> None:
    assert [parse_workers(text) for text in (None, "auto", "0", "12")] == [None, "auto", 0, 12]
    for text in ("²", "-1", "1.5", "many", ""):
        with pytest.raises(InputError, match="must be a whole number from 0, or auto"):
            parse_workers(text)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_must_fit_the_generators(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        Request(model="vit", seed=seed).check()


def test_gp_goes_without_a_pruner_as_it_learns_nothing_from_pruned_trials() -> None:
    Request(model="vit", sampler="gp", pruner=default_pruner("gp")).check()
    with pytest.raises(InputError, match="use --pruner none"):
        Request(model="vit", sampler="gp").check()


@pytest.mark.parametrize("name", ["", " ", "a/b"])
def test_a_study_name_must_be_usable(name: str) -> None:
    with pytest.raises(InputError, match="study name"):
        Request(model="vit", study=name or " ").check()
