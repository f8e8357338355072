"""Token BatchNorm against arithmetic by hand and against torch's own layout."""

import pytest
import torch
from torch import nn

from models.norms import TokenBatchNorm, batch_norms
from models.registry import ARTICLE, variant
from models.switches import ViTSwitches
from objectives.datasets import MNIST_SHAPE
from tests.conftest import TINY


@pytest.fixture
def tokens() -> torch.Tensor:
    """(B, N, C) whose features differ in mean and scale."""
    torch.manual_seed(0)
    return torch.randn(6, 5, 3) * torch.tensor([1.0, 5.0, 0.2]) + torch.tensor([0.0, -3.0, 2.0])


def affine(**options: float) -> TokenBatchNorm:
    """A norm of three features with a scale and a shift that are not the trivial ones."""
    norm = TokenBatchNorm(3, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    return norm


def test_training_normalises_over_batch_and_tokens(tokens: torch.Tensor) -> None:
    norm = affine()
    mean = tokens.sum(dim=(0, 1)) / 30
    variance = ((tokens - mean) ** 2).sum(dim=(0, 1)) / 30
    by_hand = (tokens - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(tokens), by_hand)


def test_evaluation_normalises_by_running_statistics(tokens: torch.Tensor) -> None:
    norm = affine().eval()
    norm.get_buffer("running_mean").copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.get_buffer("running_var").copy_(torch.tensor([4.0, 9.0, 0.25]))
    by_hand = (tokens - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([2.0, 3.0, 0.5])
    torch.testing.assert_close(
        norm(tokens), by_hand * norm.weight + norm.bias, rtol=1e-4, atol=1e-4
    )
    assert int(norm.get_buffer("num_batches_tracked")) == 0


def test_running_statistics_move_by_the_momentum_towards_the_batch(tokens: torch.Tensor) -> None:
    norm = affine(momentum=0.2)
    norm.get_buffer("running_mean").fill_(10.0)
    norm.get_buffer("running_var").fill_(7.0)
    norm(tokens)

    flat = tokens.reshape(30, 3)
    unbiased = ((flat - flat.mean(dim=0)) ** 2).sum(dim=0) / 29
    torch.testing.assert_close(norm.running_mean, 0.8 * 10.0 + 0.2 * flat.mean(dim=0))
    torch.testing.assert_close(norm.running_var, 0.8 * 7.0 + 0.2 * unbiased)
    assert int(norm.get_buffer("num_batches_tracked")) == 1


@pytest.mark.parametrize("training", [True, False])
def test_it_equals_batch_norm_with_two_transposes(tokens: torch.Tensor, training: bool) -> None:
    ours, theirs = affine(), nn.BatchNorm1d(3)
    theirs.load_state_dict(ours.state_dict())
    ours.train(training)
    theirs.train(training)
    for scale in (1.0, 4.0):
        expected = theirs((tokens * scale).transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(ours(tokens * scale), expected)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_it_takes_tokens_that_do_not_lie_in_order(tokens: torch.Tensor) -> None:
    scattered = tokens.transpose(0, 1).contiguous().transpose(0, 1)
    assert not scattered.is_contiguous()
    torch.testing.assert_close(affine()(scattered), affine()(tokens))


@pytest.mark.parametrize("name", ARTICLE)
def test_an_image_is_judged_alike_in_any_company(name: str) -> None:
    torch.manual_seed(0)
    model = variant(name).build(MNIST_SHAPE, TINY)
    model(torch.rand(16, 1, 28, 28))  # running statistics other than the first ones
    model.eval()
    images = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        together, alone = model(images), model(images[:1])
        among_others = model(torch.cat((images[:1], 50 * torch.rand(7, 1, 28, 28))))
    torch.testing.assert_close(alone, together[:1], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(among_others[:1], together[:1], rtol=0.0, atol=1e-5)


def test_without_running_statistics_evaluation_uses_the_batch(tokens: torch.Tensor) -> None:
    norm = TokenBatchNorm(3, track_running_stats=False)
    trained = norm(tokens)
    assert not dict(norm.named_buffers())
    torch.testing.assert_close(norm.eval()(tokens), trained)
    torch.testing.assert_close(norm(tokens * 3 + 1), trained, rtol=1e-3, atol=1e-3)


def test_the_switches_reach_every_batch_norm() -> None:
    quick = variant("vitbn").build(MNIST_SHAPE, ViTSwitches(depth=2, bn_momentum=0.3))
    assert {norm.momentum for norm in batch_norms(quick)} == {0.3}
    untracked = variant("vitbn").build(MNIST_SHAPE, ViTSwitches(depth=2, track_running_stats=False))
    assert batch_norms(untracked) == []
    assert sum(isinstance(module, TokenBatchNorm) for module in untracked.modules()) == 7
