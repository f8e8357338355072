"""Profiling a model leaves it, and the random state, as they were."""

import copy

import pytest
import torch

from models.norms import TokenBatchNorm
from models.profile import profile
from models.registry import ARTICLE
from models.switches import ViTSwitches
from models.vit import ViT
from objectives.datasets import MNIST_SHAPE


def model_in_use(name: str = "vitbn") -> ViT:
    """A model with dropout whose running statistics have seen data."""
    switches = ViTSwitches(dim=16, depth=2, heads=2, dropout=0.3, emb_dropout=0.3)
    model = ARTICLE[name](MNIST_SHAPE, switches)
    model(torch.rand(8, 1, 28, 28))
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ARTICLE)
def test_buffers_weights_modes_and_random_state_stay(name: str, training: bool) -> None:
    model = model_in_use(name).train(training)
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    profile(model, MNIST_SHAPE)
    assert {module.training for module in model.modules()} == {training}
    assert torch.equal(torch.get_rng_state(), rng)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_hook_is_left_behind() -> None:
    model = model_in_use()
    profile(model, MNIST_SHAPE)
    assert not any(module._forward_hooks for module in model.modules())


def test_counts_do_not_depend_on_the_mode_nor_on_the_call() -> None:
    model = model_in_use()
    first = profile(model.train(), MNIST_SHAPE)
    assert profile(model.eval(), MNIST_SHAPE) == first == profile(model, MNIST_SHAPE)


def test_training_goes_on_after_a_profile() -> None:
    model = model_in_use().train()
    profile(model, MNIST_SHAPE)
    model(torch.rand(4, 1, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_batch_norm_frozen_within_a_training_model_stays_frozen() -> None:
    model = model_in_use().train()
    frozen = [module.eval() for module in model.modules() if isinstance(module, TokenBatchNorm)]
    profile(model, MNIST_SHAPE)
    assert model.training
    assert not any(module.training for module in frozen)
