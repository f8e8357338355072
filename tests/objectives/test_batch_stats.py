"""Recalibration: exact population statistics of one full pass, and nothing changed by it."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.norms import TokenBatchNorm, batch_norms, set_ghost
from models.registry import ARTICLE
from models.switches import ViTSwitches
from models.vit import ViT
from objectives.batch_stats import recalibrated
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.images import as_pixels
from tests.objectives.tiny import DROPOUT

BN_MODELS = ["vitbn", "vitbnffn"]


@pytest.fixture
def pixels(subset: SearchData) -> Tensor:
    """200 real images: 3,200 patches, 3,400 tokens."""
    return as_pixels(subset.train.images[:200])


def model_of(name: str, switches: ViTSwitches = DROPOUT) -> ViT:
    """A model with dropout whose running statistics are far from those of any data."""
    torch.manual_seed(0)
    model = ARTICLE[name](MNIST_SHAPE, switches)
    for norm in batch_norms(model):
        norm.get_buffer("running_mean").normal_(0.0, 5.0)
        norm.get_buffer("running_var").uniform_(0.1, 20.0)
        norm.get_buffer("num_batches_tracked").fill_(7)
    return model


def statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copies of the running mean and variance of each BatchNorm."""
    return [
        (norm.get_buffer("running_mean").clone(), norm.get_buffer("running_var").clone())
        for norm in batch_norms(model)
    ]


def test_the_first_norm_has_the_statistics_of_the_patches(pixels: Tensor) -> None:
    model = model_of("vitbn")
    patches = F.unfold(pixels, kernel_size=7, stride=7).transpose(1, 2).reshape(-1, 49)
    mean = patches.sum(dim=0) / 3_200
    variance = ((patches - mean) ** 2).sum(dim=0) / 3_199
    with recalibrated(model, pixels):
        found_mean, found_variance = statistics(model)[0]
    torch.testing.assert_close(found_mean, mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found_variance, variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BN_MODELS)
def test_each_norm_has_the_statistics_of_its_input_under_the_ones_before(
    name: str, pixels: Tensor
) -> None:
    model = model_of(name).eval()
    inputs: list[Tensor] = []
    with recalibrated(model, pixels), torch.no_grad():
        for norm in batch_norms(model):
            norm.register_forward_pre_hook(lambda _norm, args: inputs.append(args[0]))
        model(pixels)
        found = statistics(model)

    assert len(found) == len(inputs) == (7 if name == "vitbn" else 2)
    for values, (mean, variance) in zip(inputs, found, strict=True):
        flat = values.reshape(-1, values.shape[-1])
        # Estimation normalises by the biased variance, evaluation by the unbiased: 1 in 3,200.
        torch.testing.assert_close(mean, flat.mean(dim=0), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(variance, flat.var(dim=0), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", BN_MODELS)
def test_recalibrated_evaluation_equals_batch_statistics_of_the_same_images(
    name: str, pixels: Tensor
) -> None:
    model = model_of(name, ViTSwitches(dim=16, depth=2, heads=2)).eval()
    with torch.no_grad():
        stale = model(pixels)
        by_batch = copy.deepcopy(model).train()(pixels)
        with recalibrated(model, pixels):
            recalibrated_logits = model(pixels)
    torch.testing.assert_close(recalibrated_logits, by_batch, rtol=1e-2, atol=1e-2)
    assert (stale - by_batch).abs().max() > 0.1


def mixed_modes(model: ViT) -> ViT:
    """`model` in training, except its first block; one norm with a momentum of its own."""
    model.train()
    model.blocks[0].eval()
    batch_norms(model)[-1].momentum = 0.3
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def momenta(model: nn.Module) -> list[float | None]:
    return [norm.momentum for norm in batch_norms(model)]


@pytest.mark.parametrize("name", BN_MODELS)
def test_buffers_modes_and_momenta_are_as_before_afterwards(name: str, pixels: Tensor) -> None:
    model = mixed_modes(model_of(name))
    state, was, moved = copy.deepcopy(model.state_dict()), modes(model), momenta(model)
    with recalibrated(model, pixels):
        assert modes(model) == was
        torch.testing.assert_close(
            dict(model.named_parameters()), {key: state[key] for key, _ in model.named_parameters()}
        )
    torch.testing.assert_close(model.state_dict(), state, rtol=0.0, atol=0.0)
    assert (modes(model), momenta(model)) == (was, moved)
    assert {int(norm.get_buffer("num_batches_tracked")) for norm in batch_norms(model)} == {7}


def test_everything_is_restored_after_an_exception(pixels: Tensor) -> None:
    model = mixed_modes(model_of("vitbn"))
    state, was, moved = copy.deepcopy(model.state_dict()), modes(model), momenta(model)
    with pytest.raises(KeyboardInterrupt), recalibrated(model, pixels):
        raise KeyboardInterrupt
    torch.testing.assert_close(model.state_dict(), state, rtol=0.0, atol=0.0)
    assert (modes(model), momenta(model)) == (was, moved)


def test_everything_is_restored_when_the_estimate_itself_fails(pixels: Tensor) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    model = mixed_modes(model_of("vitbn"))
    state, was, moved = copy.deepcopy(model.state_dict()), modes(model), momenta(model)
    model.transformer.norm.register_forward_hook(out_of_memory)  # all norms but one are done
    with pytest.raises(MemoryError), recalibrated(model, pixels):
        pass
    torch.testing.assert_close(model.state_dict(), state, rtol=0.0, atol=0.0)
    assert (modes(model), momenta(model)) == (was, moved)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_random_state_untouched(training: bool, pixels: Tensor) -> None:
    model = model_of("vitbn").train(training)
    without = model_of("vitbn", ViTSwitches(**{**vars(DROPOUT), "dropout": 0, "emb_dropout": 0}))
    rng = torch.get_rng_state()
    with recalibrated(model, pixels), recalibrated(without, pixels):
        for ours, theirs in zip(statistics(model), statistics(without), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("name", "tracked"), [("vit", True), ("vitbn", False)], ids=["LN", "BN without averages"]
)
def test_nothing_happens_without_population_statistics(
    name: str, tracked: bool, pixels: Tensor
) -> None:
    model = ARTICLE[name](MNIST_SHAPE, ViTSwitches(depth=1, track_running_stats=tracked))
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    state = copy.deepcopy(model.state_dict())
    with recalibrated(model, pixels):
        torch.testing.assert_close(model.state_dict(), state, rtol=0.0, atol=0.0)
    assert calls == []


def test_no_gradient_is_left_behind(pixels: Tensor) -> None:
    model = model_of("vitbn").train()
    with recalibrated(model, pixels):
        assert all(parameter.grad is None for parameter in model.parameters())
    model(pixels[:8]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_ghost_batches_of_training_do_not_divide_the_images(pixels: Tensor) -> None:
    model = model_of("vitbn")
    with recalibrated(model, pixels):
        whole = statistics(model)
    set_ghost(model, 8)
    with recalibrated(model, pixels):
        torch.testing.assert_close(statistics(model), whole)
    assert {norm.ghost for norm in model.modules() if isinstance(norm, TokenBatchNorm)} == {8}
