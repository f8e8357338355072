"""Weights from files: read without running them, fitted to the model, refused with what differs."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.errors import InputError
from models.switches import ImageShape
from models.weights import fit_weights, read_weights
from tests.models.zoo import IMAGE, images, small

WIDE = ImageShape(channels=3, size=64, classes=10)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_is_read_back_whatever_wraps_it(
    tmp_path: Path, wrapper: str | None, suffix: str
) -> None:
    state = small("deit_tiny").state_dict()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, path)
    torch.testing.assert_close(read_weights(str(path)), dict(state), rtol=0.0, atol=0.0)


def test_a_file_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"model": {"w": torch.ones(1)}, "hook": Evil()}, path)
    with pytest.raises(InputError, match=r"evil.pth is refused: it .* could run code when loaded"):
        read_weights(str(path))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.pth", b"PK\x03\x04 not a whole archive", "cannot be read as weights"),
        ("cut.safetensors", b"\xff\xff\xff\xff", "cannot be read as weights"),
        ("empty.pth", b"", "cannot be read as weights"),
        ("text.pth", b"epoch 1, loss 0.5", "cannot be read as weights"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read_weights(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1)}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="holds no weights by name"):
        read_weights(str(tmp_path / "numbers.pth"))
    torch.save({"epoch": 3, "loss": [0.5]}, tmp_path / "no.pth")
    with pytest.raises(InputError, match="holds no weights by name"):
        read_weights(str(tmp_path / "no.pth"))
    with pytest.raises(InputError, match="there is no file"):
        read_weights(str(tmp_path / "missing.pth"))


def test_a_name_that_timm_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="timm has no model 'deit_gigantic'"):
        read_weights("timm:deit_gigantic")


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be downloaded") as refused:
        read_weights("timm:deit_tiny_patch16_224.fb_in1k")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["deit_tiny", "deit_base_distilled", "vit", "cait_xxs24"])
def test_position_embeddings_are_resampled(name: str) -> None:
    trained, wider = small(name, patch_size=8), small(name, WIDE, patch_size=8)
    key = "pos_embedding" if name == "vit" else "pos_embed"
    state = trained.state_dict()
    prefix = {"cait_xxs24": 0, "deit_base_distilled": 2}.get(name, 1)
    state[key][..., :prefix, :] = 7.0
    state[key][..., prefix:, :] = 0.5
    fit_weights(wider, state, name)
    resampled = wider.state_dict()[key].reshape(-1, state[key].shape[-1])
    assert len(resampled) == prefix + 64
    torch.testing.assert_close(resampled[:prefix], torch.full_like(resampled[:prefix], 7.0))
    torch.testing.assert_close(resampled[prefix:], torch.full_like(resampled[prefix:], 0.5))
    assert torch.isfinite(wider(images(2, WIDE))).all()


def test_swins_relative_positions_are_resampled() -> None:
    trained = small("swin_tiny", patch_size=4, window_size=4)
    wider = small("swin_tiny", WIDE, patch_size=4, window_size=8)
    fit_weights(wider, trained.state_dict(), "swin_tiny")
    table = wider.state_dict()["layers.0.blocks.0.attn.relative_position_bias_table"]
    assert table.shape == (15 * 15, 2)
    assert torch.isfinite(wider(images(2, WIDE))).all()


@pytest.mark.parametrize("name", ["deit_tiny", "cait_xxs24", "swin_tiny"])
def test_the_patch_embedding_is_resampled(name: str) -> None:
    trained, finer = small(name, patch_size=8), small(name, patch_size=4)
    if name == "swin_tiny":
        trained = small(name, patch_size=8, window_size=4)
        finer = small(name, patch_size=4, window_size=4)
    fit_weights(finer, trained.state_dict(), name)
    assert torch.isfinite(finer(images(2))).all()


def test_sine_positions_stay_what_they_are() -> None:
    trained, wider = (small("vit", i, patch_size=8, pos_emb="pe1d") for i in (IMAGE, WIDE))
    positions = wider.state_dict()["pos_embedding"].clone()
    fit_weights(wider, trained.state_dict(), "vit")
    assert torch.equal(wider.state_dict()["pos_embedding"], positions)
    learned = small("vit", patch_size=8).state_dict()
    assert "have learned positions" in refusal(small("vit", patch_size=8, pos_emb="pe1d"), learned)


def refusal(model: nn.Module, state: dict[str, torch.Tensor], **options: bool) -> str:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as refused:
        fit_weights(model, state, "the model", **options)
    torch.testing.assert_close(model.state_dict(), before, rtol=0.0, atol=0.0)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_another_architecture_is_refused_by_what_differs() -> None:
    message = refusal(small("deit_tiny"), small("deit_tiny", dim=64).state_dict())
    assert "the weights are not of the model: " in message
    assert "cls_token is 1×1×64, not 1×1×32" in message
    assert " more" in message
    message = refusal(small("deit_tiny"), small("deit_tiny", depth="3").state_dict())
    assert "they have besides blocks.2.norm1.weight, " in message
    message = refusal(small("swin_tiny"), small("swin_tiny", depth="2,1,2,1").state_dict())
    assert "they have besides layers.0.blocks.1." in message
    message = refusal(small("deit_tiny"), small("cait_xxs24").state_dict())
    assert "they have besides" in message


def test_layer_norm_weights_for_batch_norm_hint_at_the_conversion() -> None:
    message = refusal(small("deit_tiny_bn"), small("deit_tiny").state_dict())
    assert "they lack blocks.0.norm1.running_mean, " in message
    assert message.endswith("; --convert makes a BatchNorm model of LayerNorm weights")


@pytest.mark.parametrize("name", ["deit_tiny", "deit_base_distilled", "swin_tiny", "vit"])
def test_another_number_of_classes_is_refused_unless_the_head_is_new(name: str) -> None:
    trained = small(name, ImageShape(channels=3, size=32, classes=100))
    model = small(name)
    message = refusal(model, trained.state_dict())
    assert message == (
        "the weights are for 100 classes, the data have 10; --new-head starts the head anew"
    )
    fit_weights(model, trained.state_dict(), name, new_head=True)
    loaded, given = model.state_dict(), trained.state_dict()
    body = [key for key in loaded if "head" not in key]
    assert all(torch.equal(loaded[key], given[key]) for key in body)
