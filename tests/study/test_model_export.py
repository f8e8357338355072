"""A study's best model as a file: folded, verified, the same image by image."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.errors import InputError
from models.fold import fold
from models.norms import batch_norms
from models.registry import variant
from objectives import card
from objectives.data import SearchData, load_search_data, load_test
from objectives.datasets import dataset
from objectives.images import Split, as_pixels
from study import model_export
from study.errors import ExportError
from study.model_export import export_model
from study.overview import overview
from study.request import Request
from study.service import Session
from study.settings import Settings
from study.storage import Store
from tests.conftest import SUBSET, TINY
from tests.models.zoo import SMALL
from tests.objectives.tiny import new_run


def split_for_the_last_word(data: SearchData) -> Split:
    """The test images, scaled as in training."""
    return load_test(dataset(SUBSET, Path()), data.train)


@torch.no_grad()
def logits(model: nn.Module, split: Split) -> torch.Tensor:
    return model.eval()(split.all_pixels())


@pytest.fixture(scope="module")
def best(store: Store, settings: Settings) -> Session:
    """A finished study of vitbn; its best trial was trained to the end."""
    assert store.engine is not None  # it keeps the server alive
    from study.service import open_session
    from tests.study.conftest import train

    request = Request(
        model="vitbn", switches=TINY, dataset=SUBSET, trials=2, epochs=1, device="cpu",
        pruner="none", study="to-export",
    )  # fmt: skip
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    return session


def test_the_folded_best_trial_agrees_on_every_test_image(
    best: Session, settings: Settings, subset: SearchData, tmp_path: Path
) -> None:
    plain, folded = tmp_path / "plain.safetensors", tmp_path / "folded.safetensors"
    export_model("to-export", "safetensors", False, plain, settings)
    said = export_model("to-export", "safetensors", True, folded, settings)
    assert "folded:  7 of 7 norms" in said

    split = split_for_the_last_word(subset)
    told, model = card.load(plain)
    told_of_fold, small = card.load(folded)
    assert (told.folded, told_of_fold.folded) == (False, True)
    assert len(batch_norms(model)) == 7
    assert batch_norms(small) == []
    wanted, got = logits(model, split), logits(small, split)
    assert len(wanted) == 500
    torch.testing.assert_close(got, wanted, rtol=0.0, atol=1e-5)
    assert torch.equal(got.argmax(dim=1), wanted.argmax(dim=1))
    seen = overview(best.store, best.study)
    assert seen is not None
    assert seen.best is not None
    accuracy = float(
        (logits(small, subset.validation).argmax(1) == subset.validation.labels).float().mean()
    )
    assert accuracy == pytest.approx(seen.best.val_accuracy)


def test_onnx_agrees_on_every_test_image(
    best: Session, settings: Settings, subset: SearchData, tmp_path: Path
) -> None:
    seen = overview(best.store, best.study)
    assert seen is not None
    assert seen.best is not None
    run_id = str(seen.best.mlflow_run_id)
    plain, path = tmp_path / "plain.safetensors", tmp_path / "folded.onnx"
    export_model(run_id, "safetensors", False, plain, settings)
    export_model(run_id, "onnx", True, path, settings)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    split = split_for_the_last_word(subset)
    pixels = as_pixels(split.images).numpy()
    got = np.concatenate(
        [session.run(None, {"images": pixels[i : i + 100]})[0] for i in range(0, 500, 100)]
    )
    wanted = logits(card.load(plain)[1], split).numpy()
    assert np.abs(got - wanted).max() <= 1e-4
    assert np.array_equal(got.argmax(axis=1), wanted.argmax(axis=1))
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert not kinds & {"BatchNormalization", "LayerNormalization"}


@pytest.mark.parametrize("name", ["swin_tiny_bn_wn_relu6", "cait_xxs24_repbn_ffnbn"])
def test_other_families_become_onnx_with_their_scaling(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    data = load_search_data(dataset("fake:240x3x32x4", Path()))
    chosen = variant(name)
    switches = chosen.resolved(chosen.switches(**SMALL[chosen.parts.backbone]), data.shape)
    run = new_run(data, model=name, switches=switches, train_images=220, rungs=(40,))
    path = tmp_path / "weights.safetensors"
    card.save(path, run.weights(), run.card)
    said = export_model(str(path), "onnx", True, tmp_path / "model.onnx", settings)
    assert any("onnxruntime gives the same logits" in line for line in said)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (got,) = session.run(None, {"images": as_pixels(data.validation.images).numpy()})
    wanted = logits(card.load(path)[1], data.validation).numpy()
    assert np.abs(got - wanted).max() <= 1e-4


def test_a_training_checkpoint_is_exported_too(
    settings: Settings, subset: SearchData, tmp_path: Path
) -> None:
    run = new_run(subset, model="vit_prepbn")
    torch.save(run.state_dict(), tmp_path / "checkpoint.pt")
    out = tmp_path / "out.safetensors"
    said = export_model(str(tmp_path / "checkpoint.pt"), "safetensors", True, out, settings)
    assert any(line.startswith("kept:    ") and "PRepBN at λ = 1" in line for line in said)
    assert "folded:  0 of 7 norms" in said


def test_what_was_folded_can_be_exported_again(
    settings: Settings, subset: SearchData, tmp_path: Path
) -> None:
    run = new_run(subset)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    card.save(first, run.weights(), run.card)
    export_model(str(first), "safetensors", True, second, settings)
    export_model(str(second), "safetensors", False, first, settings)
    models = [card.load(path)[1] for path in (first, second)]
    a, b = (logits(model, subset.validation) for model in models)
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("to-exprot", "no study 'to-exprot'; did you mean 'to-export'?"),
        ("0" * 32, f"the weights of run {'0' * 32} are not to be had"),
    ],
)
def test_a_target_that_is_nothing_is_refused(
    best: Session, settings: Settings, tmp_path: Path, target: str, message: str
) -> None:
    assert best.is_done
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as refused:
        export_model(target, "safetensors", True, tmp_path / "out", settings)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_say_of_which_model_are_refused(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="does not say which model it is of"):
        export_model(str(path), "onnx", False, None, settings)


def test_an_export_does_not_replace_its_source(
    settings: Settings, subset: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = new_run(subset)
    card.save(Path("in.safetensors"), run.weights(), run.card)
    before = Path("in.safetensors").read_bytes()
    with pytest.raises(InputError, match="would replace what is exported"):
        export_model("in.safetensors", "safetensors", False, None, settings)
    assert Path("in.safetensors").read_bytes() == before


@pytest.mark.parametrize("value", [5, {}, {"model": "vit"}])
def test_a_card_that_cannot_be_read_is_one_line(
    settings: Settings, tmp_path: Path, value: object
) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "card": value}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="says of its model what cannot be read"):
        export_model(str(tmp_path / "odd.pt"), "safetensors", False, tmp_path / "o", settings)


def test_nothing_is_written_that_computes_something_else(
    settings: Settings, subset: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(subset)
    card.save(tmp_path / "in.safetensors", run.weights(), run.card)
    right = fold

    def wrong(model: nn.Module) -> object:
        done = right(model)
        with torch.no_grad():
            next(done.model.parameters()).add_(1e-3)
        return done

    monkeypatch.setattr(model_export, "fold", wrong)
    out = tmp_path / "out.safetensors"
    with pytest.raises(ExportError, match=r"folding in torch.float64 changes the model"):
        export_model(str(tmp_path / "in.safetensors"), "safetensors", True, out, settings)
    assert not out.exists()


def test_an_unwritable_place_is_one_line(
    settings: Settings, subset: SearchData, tmp_path: Path
) -> None:
    run = new_run(subset)
    card.save(tmp_path / "in.safetensors", run.weights(), run.card)
    for out in (tmp_path, tmp_path / "none" / "out.safetensors"):
        with pytest.raises(InputError, match="cannot write"):
            export_model(str(tmp_path / "in.safetensors"), "safetensors", False, out, settings)


def test_a_study_that_was_not_recorded_has_no_weights(
    settings: Settings, best: Session, tmp_path: Path
) -> None:
    assert best.is_done
    untracked = Settings(data_dir=settings.data_dir, storage_url=None, mlflow_uri="none")
    with pytest.raises(InputError, match="no weights of 'to-export' were kept"):
        export_model("to-export", "safetensors", False, tmp_path / "out", untracked)
