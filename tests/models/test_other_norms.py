"""The other normalisations against arithmetic by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.norms import Derf, DyT, ProgressiveRepBatchNorm, RepBatchNorm, TokenBatchNorm
from models.unified_norm import WINDOW, UnifiedNorm


@pytest.fixture
def tokens() -> Tensor:
    """(B, N, C) whose features differ in mean and scale, in double precision."""
    torch.manual_seed(0)
    scales, means = torch.tensor([1.0, 5.0, 0.2]), torch.tensor([0.0, -3.0, 2.0])
    return (torch.randn(6, 5, 3) * scales + means).double()


def test_dyt_and_derf_squash_each_number_by_itself(tokens: Tensor) -> None:
    dyt, derf = DyT(3, 0.25).double(), Derf(3).double()
    with torch.no_grad():
        for norm in (dyt, derf):
            norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
            norm.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
        derf.shift.fill_(0.3)
    x = float(tokens[1, 2, 1])
    assert dyt(tokens)[1, 2, 1].item() == pytest.approx(2.0 * math.tanh(0.25 * x) + 1.0)
    assert derf(tokens)[1, 2, 1].item() == pytest.approx(2.0 * math.erf(0.5 * x + 0.3) + 1.0)


def test_repbn_adds_a_share_of_its_input(tokens: Tensor) -> None:
    norm = RepBatchNorm(TokenBatchNorm(3)).double()
    expected = TokenBatchNorm(3).double()(tokens)
    torch.testing.assert_close(norm(tokens), expected + tokens)
    with torch.no_grad():
        norm.alpha.fill_(0.0)
    torch.testing.assert_close(norm(tokens), expected)


@pytest.fixture
def progressive() -> ProgressiveRepBatchNorm:
    rep = RepBatchNorm(TokenBatchNorm(3))
    return ProgressiveRepBatchNorm(nn.LayerNorm(3), rep, share=0.8).double()


@pytest.mark.parametrize(
    ("done", "lam"), [(0.0, 1.0), (0.2, 0.75), (0.4, 0.5), (0.8, 0.0), (1.0, 0.0)]
)
def test_lambda_falls_from_one_to_zero_over_its_share(
    progressive: ProgressiveRepBatchNorm, tokens: Tensor, done: float, lam: float
) -> None:
    progressive.eval().set_progress(done)
    assert float(progressive.lam) == pytest.approx(lam)
    expected = lam * progressive.ln(tokens) + (1 - lam) * progressive.rep(tokens)
    torch.testing.assert_close(progressive(tokens), expected)


def test_the_layer_norm_is_computed_no_more_at_the_end(
    progressive: ProgressiveRepBatchNorm, tokens: Tensor
) -> None:
    calls: list[int] = []
    progressive.ln.register_forward_hook(lambda *_: calls.append(1))
    progressive.set_progress(0.5)
    progressive(tokens)
    progressive.set_progress(0.9)
    progressive(tokens)
    assert calls == [1]


@pytest.mark.parametrize("done", [0.3, 1.0])
def test_lambda_is_saved_and_loaded(
    progressive: ProgressiveRepBatchNorm, tokens: Tensor, done: float
) -> None:
    progressive.set_progress(done)
    rep = RepBatchNorm(TokenBatchNorm(3))
    again = ProgressiveRepBatchNorm(nn.LayerNorm(3), rep, share=0.8).double()
    again.load_state_dict(progressive.state_dict())
    assert again.is_merged == progressive.is_merged == (done == 1.0)
    assert torch.equal(again.eval()(tokens), progressive.eval()(tokens))


def second_moment(tokens: Tensor) -> Tensor:
    return tokens.reshape(-1, 3).square().mean(dim=0)


def unified(warm_up: int) -> UnifiedNorm:
    return UnifiedNorm(3, warm_up).double()


def test_un_divides_by_the_second_moment_without_a_mean(tokens: Tensor) -> None:
    norm = unified(100)
    torch.testing.assert_close(norm(tokens), tokens / (second_moment(tokens) + 1e-5).sqrt())
    expected = 0.9 + 0.1 * second_moment(tokens)
    torch.testing.assert_close(norm.running_moment, expected)
    norm.eval()
    torch.testing.assert_close(norm(tokens), tokens / (expected + 1e-5).sqrt())
    torch.testing.assert_close(norm.running_moment, expected)


def test_un_smooths_by_the_geometric_mean_of_four_steps_after_its_warm_up(tokens: Tensor) -> None:
    norm = unified(0)
    factors = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02]
    for factor in factors:
        given = tokens * factor
        out = norm(given)
    moments = torch.stack([second_moment(tokens * factor) for factor in factors[-WINDOW:]])
    geometric = moments.log().mean(dim=0).exp()
    torch.testing.assert_close(out, given / (geometric + 1e-5).sqrt())


def test_un_leaves_an_outlier_out_of_its_window(tokens: Tensor) -> None:
    norm = unified(0)
    for factor in (1.0, 1.1, 0.9, 1.05, 0.95):
        norm(tokens * factor)
    before = norm.moments.clone()
    running = norm.running_moment.clone()
    out = norm(tokens * 1_000)
    own = second_moment(tokens * 1_000)
    torch.testing.assert_close(out, tokens * 1_000 / (own + 1e-5).sqrt())
    changed = (norm.moments != before).any(dim=1)
    assert int(changed.sum()) == 1
    torch.testing.assert_close(norm.moments[changed][0], running)


def test_the_gradient_of_un_averages_what_it_takes_away(tokens: Tensor) -> None:
    norm = unified(100)
    torch.manual_seed(1)
    slope = torch.randn_like(tokens)
    given = tokens.clone().requires_grad_()
    (norm(given) * slope).sum().backward()
    scale = (second_moment(tokens) + 1e-5).rsqrt()
    z = tokens * scale
    along = (slope * z).reshape(-1, 3).mean(dim=0)
    torch.testing.assert_close(norm.gradient, 0.1 * along)
    torch.testing.assert_close(given.grad, (slope - 0.1 * along * z) * scale)
    torch.testing.assert_close(norm.weight.grad, (slope * z).reshape(-1, 3).sum(dim=0))
    torch.testing.assert_close(norm.bias.grad, slope.reshape(-1, 3).sum(dim=0))


def test_the_gradients_of_un_are_compensated_once_it_has_settled(tokens: Tensor) -> None:
    norm = unified(0)
    norm.steps.fill_(2_000)
    norm.moments.copy_(second_moment(tokens).expand(WINDOW, 3))
    norm.running_moment.copy_(second_moment(tokens) / 4)
    given = tokens.clone().requires_grad_()
    torch.manual_seed(1)
    slope = torch.randn_like(tokens)
    (norm(given) * slope).sum().backward()
    ratio = ((second_moment(tokens) + 1e-5) / (second_moment(tokens) / 4 + 1e-5)).sqrt()
    scale = (second_moment(tokens) + 1e-5).rsqrt()
    z = tokens * scale
    torch.testing.assert_close(norm.weight.grad, (ratio * slope * z).reshape(-1, 3).sum(dim=0))
    own = (ratio * slope * z).reshape(-1, 3).mean(dim=0)
    along = 0.1 * own / WINDOW  # the other steps of the window had none
    torch.testing.assert_close(given.grad, (ratio * slope - along * z) * scale)


def test_un_trains_though_batches_jump(tokens: Tensor) -> None:
    norm = unified(10)
    torch.manual_seed(2)
    for step in range(60):
        given = (tokens * (1 + 4 * torch.rand(1).item() ** 8)).requires_grad_()
        norm(given).square().sum().backward()
        assert torch.isfinite(given.grad).all(), step  # type: ignore[arg-type]
    assert int(norm.steps) == 60
