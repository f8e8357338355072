"""Every family and every norm is searched by the same command, on every kind of data."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch

from models.errors import InputError
from models.grammar import NORMS
from models.registry import variant
from models.switches import ImageShape
from objectives.recipe import recalibration_images
from study.docket import Docket
from study.identity import IDENTITY_KEY, identity_of
from study.overview import Overview, overview
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from tests.conftest import CPU
from tests.models.zoo import SMALL, small, small_switches
from tests.objectives.made_images import cifar_archive, cifar_batches, image_folder, tiny_imagenet

Search = Callable[..., Session]

# One member of every family, and every norm and switch, in as few studies as hold them.
ZOO = (
    *("vit_rms", "vitbn_wn_relu6", "deit_tiny", "deit_tiny_bn_wn_relu6", "deit_tiny_dyt"),
    *("deit_base_distilled_lnbn_wn", "vit_large_repbn", "swin_tiny_bn_ffnbn", "swin_tiny_derf"),
    *("cait_xxs24_prepbn_relu6", "cait_xxs24_un", "timm:vit_tiny_patch16_224_bn"),
)
FAKE = "fake:300x3x32x4"


def asked(name: str, dataset: str = FAKE) -> Request:
    """Two short trials of the small form of a model."""
    chosen = variant(name)
    known = {**SMALL, "vitbn": SMALL["vit"]}
    return Request(
        model=name,
        switches=chosen.switches(**known[chosen.parts.backbone]),
        dataset=dataset,
        trials=2,
        epochs=1,
        device="cpu",
        pruner="none",
        study=f"{dataset.partition(':')[0]}-{name.replace(':', '-')}",
    )


def seen_in(store: Store, session: Session) -> Overview:
    seen = overview(store, session.study)
    assert seen is not None
    return seen


def test_every_norm_and_family_is_among_them() -> None:
    parts = [variant(name).parts for name in ZOO]
    assert {part.norm for part in parts} == set(NORMS)
    assert {part.backbone for part in parts} == {*SMALL, "vitbn"}
    for switch in ("hidden_bn", "weight_norm", "relu6"):
        assert any(getattr(part, switch) for part in parts)


@pytest.mark.parametrize("name", ZOO)
def test_two_trials_of_each_end(store: Store, search: Search, name: str) -> None:
    seen = seen_in(store, search(asked(name)))
    assert [row.outcome for row in seen.trials] == ["complete"] * 2
    assert seen.best is not None
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    run = client.get_run(str(seen.best.mlflow_run_id))
    assert run.data.params["model"] == name
    assert run.data.params["blocks_executed"] != "0"
    assert int(run.data.params["multiply_adds"]) > 0
    assert "switches.patch_size" in run.data.params


@pytest.mark.parametrize("kind", ["tiny-imagenet", "folder", "cifar10", "cifar100"])
def test_real_layouts_run_end_to_end(
    store: Store, search: Search, tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        root = image_folder(tmp_path / "flowers", per_class=40)
    elif kind == "tiny-imagenet":
        root = tiny_imagenet(tmp_path / "tiny-imagenet-200", per_class=50)
    else:
        root = tmp_path
        cifar_archive(root, kind, cifar_batches(kind, 120 if kind == "cifar100" else 24))
    request = replace(asked("deit_tiny_bn", f"{kind}:{root}"), epochs=2)
    request = replace(request, space=replace(request.space, lr=(1e-3, 1e-2), batch_size=(8, 12)))
    session = search(request)
    seen = seen_in(store, session)
    assert [row.outcome for row in seen.trials] == ["complete"] * 2
    patch = {"tiny-imagenet": 8, "folder": 2}.get(kind, 4)
    assert session.identity.switches["patch_size"] == patch
    if kind != "cifar100":  # a colour for each class, and few images of a hundred
        assert seen.best is not None
        assert seen.best.val_accuracy is not None
        assert seen.best.val_accuracy > 0.3


def test_a_study_of_files_is_named_after_data_and_model() -> None:
    assert replace(asked("timm:vit_tiny_patch16_224_bn"), study=None).study_name == (
        "fake-timm-vit_tiny_patch16_224_bn"
    )
    assert Request(model="deit_tiny", dataset="folder:/data/flowers").study_name == (
        "flowers-deit_tiny"
    )
    assert Request(model="deit_tiny", dataset="cifar10:/data/c").study_name == "cifar10-deit_tiny"


def test_a_study_keeps_how_its_data_and_weights_were_asked_for(
    search: Search, tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "set", per_class=12)
    (root / "train" / "class-0" / "3.png").write_bytes(b"broken")
    request = replace(
        asked("deit_tiny_rms", f"folder:{root}"), image_size=16, skip_broken=True, trials=1,
        study="kept-options",
    )  # fmt: skip
    request = replace(request, space=replace(request.space, batch_size=(8, 12)))
    session = search(request)
    assert (session.identity.image_size, session.identity.skip_broken) == (16, True)
    assert session.identity.train_images == 33
    words = request.command()
    assert "--image-size 16" in words
    assert words.endswith("--skip-broken")
    with pytest.raises(InputError, match="image_size is 16, not None"):
        search(replace(request, image_size=None))


def test_switches_of_the_zoo_are_told_again(search: Search) -> None:
    request = asked("swin_tiny_derf")
    session = search(request)  # finished above: nothing is trained
    assert json.loads(json.dumps(session.identity.switches))["window_size"] == 8
    assert "--set depth=1,1,2,1" in request.command()
    assert small_switches(variant("swin_tiny")) == request.switches


def test_an_identity_stored_before_there_was_a_zoo_is_read(store: Store, search: Search) -> None:
    request = replace(asked("vitbn_wn_relu6"), model="vitbn", study="older", trials=1)
    session = search(request)
    stored = session.identity.as_dict()
    for name in ("image_size", "skip_broken", "weights", "weights_checksum", "convert", "new_head"):
        del stored[name]
    del stored["recalibration_images"]
    stored["switches"] = {
        name: value
        for name, value in stored["switches"].items()
        if name not in ("dyt_alpha", "un_warm_up", "prepbn_share")
    }
    session.study.set_user_attr(IDENTITY_KEY, stored)
    assert identity_of(session.study) == session.identity
    assert search(replace(request, trials=2)).identity == session.identity
    assert len(seen_in(store, session).ended) == 2


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Weights of a small LayerNorm model for four classes."""
    path = tmp_path / "trained.pth"
    torch.save(small("deit_tiny", ImageShape(3, 32, 4)).state_dict(), path)
    return path


def test_trials_begin_with_trained_weights(
    store: Store, search: Search, trained: Path, tmp_path: Path
) -> None:
    request = replace(asked("deit_tiny_bn"), weights=str(trained), convert=True, study="warm")
    session = search(request)
    assert [row.outcome for row in seen_in(store, session).trials] == ["complete"] * 2
    words = request.command()
    assert f"--weights {trained}" in words
    assert words.endswith("--convert")
    copied = shutil.copy(trained, tmp_path / "copied.pth")
    again = search(replace(request, weights=str(copied)))
    kept = identity_of(again.study)
    assert kept is not None
    assert kept.weights == str(trained), "the same numbers are the same study"
    other = small("deit_tiny", ImageShape(3, 32, 4)).state_dict()
    other["norm.bias"] += 1.0
    torch.save(other, trained)
    with pytest.raises(InputError, match="weights_checksum is "):
        search(request)


def test_a_node_without_the_weights_is_refused(
    search: Search, store: Store, settings: Settings, trained: Path
) -> None:
    session = search(
        replace(asked("deit_tiny_rms"), model="deit_tiny", weights=str(trained), study="elsewhere")
    )
    trained.unlink()
    with pytest.raises(InputError, match="there is no file"):
        Docket(store, settings, CPU, [session.study.study_name])


@pytest.mark.parametrize(
    ("size", "images"), [(28, 2_000), (64, 2_000), (224, 163), (384, 100), (2_048, 100)]
)
def test_recalibration_takes_fewer_images_where_they_are_large(size: int, images: int) -> None:
    assert recalibration_images(size) == images
