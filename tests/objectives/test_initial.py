"""Runs that begin with trained weights, and norms that change while a run goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import InputError
from models.norms import progressive_norms
from models.registry import variant
from objectives.data import SearchData
from objectives.initial import check_fit, initial_weights
from objectives.metrics import Pause
from objectives.recipe import InitialWeights, TrainConfig
from objectives.run import Run
from objectives.starting import start
from objectives.training import train
from tests.conftest import CPU, TINY
from tests.objectives.tiny import CONFIG, new_run, rungs, untimed


@pytest.fixture
def trained(subset: SearchData, tmp_path: Path) -> Path:
    """Weights of a tiny LayerNorm model that has learnt something."""
    run = new_run(subset, model="vit", lr=3e-3, rungs=(2_000,))
    list(train(run))
    path = tmp_path / "trained.pth"
    torch.save(run.model.state_dict(), path)
    return path


def begun(subset: SearchData, model: str, path: Path, **options: Any) -> Run:
    """A run of `model` with those weights, at its beginning."""
    told = {"convert_": False, "new_head": False} | options
    initial, _ = initial_weights(str(path), variant(model), **told)
    return start(replace(CONFIG, model=model, initial=initial), subset, CPU)


def loss(run: Run) -> float:
    """On the validation images, before any training."""
    from objectives.evaluation import evaluate

    return evaluate(run.model, run.data.validation, 83).loss


def test_a_run_begins_with_the_weights(subset: SearchData, trained: Path) -> None:
    run = begun(subset, "vit", trained)
    torch.testing.assert_close(run.model.state_dict(), torch.load(trained), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    "model", ["vit_bn", "vit_lnbn_relu6", "vit_repbn_wn", "vit_prepbn", "vit_un"]
)
def test_a_converted_run_is_ahead_of_one_that_begins_at_random(
    subset: SearchData, trained: Path, model: str
) -> None:
    run = begun(subset, model, trained, convert_=True)
    fresh = new_run(subset, model=model)
    assert loss(run) < 0.75 * loss(fresh)
    last, of_fresh = (rungs(train(each))[-1] for each in (run, fresh))
    assert last.val_loss < of_fresh.val_loss


def test_plain_weights_are_split_by_weight_norm_after_loading(
    subset: SearchData, trained: Path
) -> None:
    assert loss(begun(subset, "vit_wn", trained)) == pytest.approx(
        loss(begun(subset, "vit", trained))
    )


def test_a_run_with_a_new_head_keeps_the_rest(subset: SearchData, trained: Path) -> None:
    run = begun(subset, "vit", trained, new_head=True)
    loaded, given = run.model.state_dict(), torch.load(trained)
    same = {key for key in given if torch.equal(loaded[key], given[key])}
    assert {key for key in given if key not in same} == {"mlp_head.weight", "mlp_head.bias"}


def test_a_file_that_changed_is_refused(subset: SearchData, trained: Path) -> None:
    initial, _ = initial_weights(str(trained), variant("vit"), convert_=False, new_head=False)
    config: TrainConfig = replace(CONFIG, model="vit", initial=initial)
    moved = trained.rename(trained.with_name("elsewhere.pth"))
    with pytest.raises(InputError, match="there is no file"):
        start(config, subset, CPU)
    state = torch.load(moved)
    state["mlp_head.bias"][0] += 1e-3
    torch.save(state, trained)
    with pytest.raises(InputError, match="has not the weights that the study was begun with"):
        start(config, subset, CPU)


def test_the_checksum_is_of_the_numbers_whatever_holds_them(trained: Path) -> None:
    wrapped = trained.with_name("wrapped.pth")
    torch.save({"model": torch.load(trained), "epoch": 3}, wrapped)
    checksums = {
        initial_weights(str(path), variant("vit"), convert_=False, new_head=False)[0].checksum
        for path in (trained, wrapped)
    }
    assert len(checksums) == 1


def test_weights_are_checked_before_anything_begins(subset: SearchData, trained: Path) -> None:
    chosen, state = variant("vit_bn"), torch.load(trained)
    switches = chosen.resolved(TINY, subset.shape)
    check_fit(InitialWeights("f", convert=True), state, chosen, subset.shape, switches)
    with pytest.raises(InputError, match="--convert makes a BatchNorm model"):
        check_fit(InitialWeights("f"), state, chosen, subset.shape, switches)
    other = replace(TINY, depth=3)
    with pytest.raises(InputError, match="not of the LayerNorm twin of vit_bn"):
        check_fit(InitialWeights("f", convert=True), state, chosen, subset.shape, other)


def test_timm_alone_means_the_backbones_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read(source: str) -> dict[str, torch.Tensor]:
        asked.append(source)
        return {"w": torch.ones(1)}

    monkeypatch.setattr("objectives.initial.read_weights", read)
    for model in ("deit_tiny_bn", "timm:vit_tiny_patch16_224_bn"):
        initial_weights("timm", variant(model), convert_=False, new_head=False)
    assert asked == ["timm:deit_tiny_patch16_224", "timm:vit_tiny_patch16_224"]
    for model in ("deit_large", "vitbn"):
        with pytest.raises(InputError, match=r"timm has no weights of .*; give a file"):
            initial_weights("timm", variant(model), convert_=False, new_head=False)


def test_the_conversion_is_the_same_every_time(subset: SearchData, trained: Path) -> None:
    curves = []
    for _ in range(2):
        run = begun(subset, "vit_bn", trained, convert_=True)
        curves.append([untimed(event) for event in rungs(train(run))])
    assert curves[0] == curves[1]


def test_lambda_follows_the_share_of_the_run_that_is_done(subset: SearchData) -> None:
    run = new_run(subset, model="vit_prepbn", switches=replace(TINY, prepbn_share=0.5))
    seen = [
        (run.images_seen, float(progressive_norms(run.model)[0].lam))
        for event in train(run, lambda: True)
        if isinstance(event, Pause)
    ]
    assert [lam for _, lam in seen] == pytest.approx([max(1 - n / 100, 0.0) for n, _ in seen])
    assert all(norm.is_merged for norm in progressive_norms(run.model))


def test_an_interrupted_run_goes_on_with_its_lambda(subset: SearchData) -> None:
    whole = new_run(subset, model="vit_prepbn")
    expected = [untimed(event) for event in rungs(train(whole))]
    first = new_run(subset, model="vit_prepbn")
    events = train(first)
    next(events)
    second = new_run(subset, model="vit_prepbn")
    second.load_state_dict(first.state_dict())
    assert [untimed(metrics) for metrics in rungs([*second.curve, *train(second)])] == expected


def test_prepbn_from_trained_prepbn_begins_anew(subset: SearchData, tmp_path: Path) -> None:
    run = new_run(subset, model="vit_prepbn")
    list(train(run))
    assert all(norm.is_merged for norm in progressive_norms(run.model))
    torch.save(run.model.state_dict(), tmp_path / "prepbn.pth")
    again = begun(subset, "vit_prepbn", tmp_path / "prepbn.pth")
    assert [float(norm.lam) for norm in progressive_norms(again.model)] == [1.0] * 7
