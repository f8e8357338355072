"""Trained weights on images of another size and other classes, whole or by a linear probe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import InputError
from models.registry import variant
from models.switches import ImageShape, Switches, ZooSwitches
from objectives.data import SearchData
from objectives.images import Split, resized
from objectives.initial import check_fit, initial_weights
from objectives.recipes import Recipe
from objectives.training import train
from tests.conftest import TINY
from tests.models.zoo import small, small_switches
from tests.objectives.tiny import new_run, rungs

SIDE = 56  # pixels, of which the subset has 28
SMALL = ZooSwitches(dim=16, depth="2", heads=2, patch_size=7)
PROBE = Recipe(train="head")


@pytest.fixture(scope="module")
def larger(subset: SearchData) -> SearchData:
    """The same images twice as large, in five classes of two digits each."""

    def changed(split: Split) -> Split:
        return replace(split, images=resized(split.images, SIDE), labels=split.labels // 2)

    shape = ImageShape(1, SIDE, 5)
    halves = changed(subset.train), changed(subset.validation)
    return replace(subset, shape=shape, train=halves[0], validation=halves[1])


@pytest.mark.parametrize(
    ("model", "switches"),
    [
        ("vit", replace(TINY, patch_size=7)),
        ("vit_bn", replace(TINY, patch_size=7)),
        ("deit_base_distilled_bn", SMALL),
    ],
)
def test_what_was_learnt_is_of_use_at_another_size_and_for_other_classes(
    subset: SearchData, larger: SearchData, tmp_path: Path, model: str, switches: Switches
) -> None:
    run = new_run(subset, model=model, switches=switches, lr=3e-3, rungs=(2_000,))
    list(train(run))
    torch.save(run.weights(), tmp_path / "small.pth")
    told, _ = initial_weights(str(tmp_path / "small.pth"), variant(model), False, new_head=True)
    losses = []
    for initial in (told, None):
        begun = new_run(
            larger, model=model, switches=switches, lr=3e-3, rungs=(500,), initial=initial
        )
        losses.append(rungs(train(begun))[-1].val_loss)
    assert losses[0] < losses[1] - 0.02


@pytest.mark.parametrize("name", ["vit", "deit_tiny", "deit_base_distilled", "vit_large"])
@pytest.mark.parametrize("norm", ["", "_bn", "_bn_ffnbn_wn_relu6"])
@pytest.mark.parametrize("convert", [False, True])
def test_every_variant_of_vit_and_deit_takes_weights_of_another_size(
    tmp_path: Path, name: str, norm: str, convert: bool
) -> None:
    if convert and not norm:
        return  # it has no BatchNorm
    torch.save(small(name if convert else name + norm, patch_size=8).state_dict(), tmp_path / "w")
    chosen, image = variant(name + norm), ImageShape(3, 64, 7)
    initial, state = initial_weights(str(tmp_path / "w"), chosen, convert, new_head=True)
    switches = chosen.resolved(small_switches(chosen, patch_size=8), image)
    check_fit(initial, state, chosen, image, switches)
    with pytest.raises(InputError, match="the weights are for 10 classes, the data have 7"):
        check_fit(replace(initial, new_head=False), state, chosen, image, switches)


def test_patches_that_cannot_be_resampled_are_told_with_what_to_do(tmp_path: Path) -> None:
    torch.save(small("vit_bn", patch_size=8).state_dict(), tmp_path / "w")
    chosen, image = variant("vit_bn"), ImageShape(3, 64, 10)
    initial, state = initial_weights(str(tmp_path / "w"), chosen, False, new_head=False)
    switches = chosen.resolved(small_switches(chosen), image)
    with pytest.raises(InputError, match="--set patch_size=8 keeps the patches that they were"):
        check_fit(initial, state, chosen, image, switches)


@pytest.mark.parametrize("model", ["vitbn", "vit_prepbn", "vit_un", "vit_bn_wn"])
def test_a_linear_probe_leaves_all_but_the_classifier_as_it_was(
    subset: SearchData, tmp_path: Path, model: str
) -> None:
    run = new_run(subset, model=model, rungs=(100,))
    list(train(run))
    torch.save(run.weights(), tmp_path / "w.pth")
    initial, given = initial_weights(str(tmp_path / "w.pth"), variant(model), False, new_head=True)
    options: dict[str, Any] = {"weight_decay": 0.1, "optimizer": "adamw", "ema": 0.9}
    probe = new_run(subset, model=model, initial=initial, recipe=replace(PROBE, **options))
    for _ in train(probe):  # looked at at each rung: at the end PRepBN's λ is 0 anyhow
        for judged in (probe.model, probe.judged_model):
            state = judged.state_dict()
            changed = {key for key in given if not torch.equal(state[key], given[key])}
            assert changed == {"mlp_head.weight", "mlp_head.bias"}
