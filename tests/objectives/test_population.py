"""Population statistics over many batches: exact layer by layer, and pooled in one pass."""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.norms import batch_norms, set_ghost
from models.registry import variant
from models.switches import Switches, ZooSwitches
from objectives.batch_stats import recalibrated
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.images import as_pixels
from objectives.moments import Moments
from objectives.population import METHODS, Method, Population, estimate, on_population
from tests.conftest import TINY
from tests.objectives.tiny import DROPOUT

DEIT = ZooSwitches(dim=32, depth="2", heads=2, patch_size=7)
LAST = 23  # images of the last of the batches, all others have 60


@pytest.fixture(scope="module")
def pixels(subset: SearchData) -> Tensor:
    """143 real images."""
    return as_pixels(subset.train.images[: 120 + LAST])


def batches_of(pixels: Tensor) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(pixels.split(60))


def model_of(name: str = "vitbn", switches: Switches = DROPOUT) -> nn.Module:
    """A model whose running averages are far from those of any data."""
    torch.manual_seed(0)
    model = variant(name).build(MNIST_SHAPE, switches)
    for norm in batch_norms(model):
        norm.get_buffer("running_mean").normal_(0.0, 5.0)
        norm.get_buffer("running_var").uniform_(0.1, 20.0)
    return model


def of_one_batch(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """The buffers that one pass over all images together gives."""
    with recalibrated(model, pixels):
        return {name: value.clone() for name, value in model.named_buffers()}


@pytest.mark.parametrize("name", ["vitbn", "vit_repbn", "vit_un", "deit_tiny_bn"])
def test_exact_statistics_over_ragged_batches_are_those_of_one_batch(
    name: str, pixels: Tensor
) -> None:
    switches = DROPOUT if name.startswith("vit") else DEIT
    model = model_of(name, switches)
    found = estimate(model, batches_of(pixels))
    whole = of_one_batch(model, pixels)
    wanted = {n: v for n, v in whole.items() if n.rpartition(".")[2].startswith("running_")}
    assert set(found.buffers) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(found.buffers[key].float(), value, rtol=1e-4, atol=1e-5)


def test_exact_statistics_differ_from_one_pass_behind_the_first_norm(pixels: Tensor) -> None:
    model = model_of()
    exact, pooled = (estimate(model, batches_of(pixels), method).buffers for method in METHODS)
    names = list(exact)
    assert list(pooled) == names
    for name in names[:2]:  # mean and variance of the first norm
        torch.testing.assert_close(pooled[name], exact[name], rtol=1e-6, atol=1e-9)
    apart = [(pooled[n] - exact[n]).abs().max().item() for n in names[2:]]
    assert 1e-3 < max(apart) < 0.2


def test_one_pass_pools_the_batches_moments_with_what_is_between_their_means(
    pixels: Tensor,
) -> None:
    """The first norm's input are the patches, so that its moments can be computed by hand."""
    parts = [pixels[:60], 3.0 * pixels[60:120] + 1.0, pixels[120:]]  # means far from each other
    model = model_of()
    found = estimate(model, lambda: iter(parts), "one-pass").buffers
    patches = [
        F.unfold(part, kernel_size=7, stride=7).transpose(1, 2).reshape(-1, 49).double()
        for part in parts
    ]
    rows = [len(each) for each in patches]
    assert rows == [960, 960, 16 * LAST]  # images times tokens
    means = [each.mean(dim=0) for each in patches]
    mean = torch.cat(patches).mean(dim=0)
    within = torch.stack([((x - m) ** 2).sum(dim=0) for x, m in zip(patches, means, strict=True)])
    between = torch.stack([n * (m - mean) ** 2 for n, m in zip(rows, means, strict=True)])
    torch.testing.assert_close(found["to_patch_embedding.1.running_mean"], mean)
    torch.testing.assert_close(
        found["to_patch_embedding.1.running_var"], (within + between).sum(dim=0) / (sum(rows) - 1)
    )
    assert (
        between.sum(dim=0) / within.sum(dim=0)
    ).min() > 0.5  # what an average of variances would leave out


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 3, 7, 4), (6, 4)])
def test_moments_count_every_row_whatever_the_dimensions(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    whole, merged = Moments.of(x), Moments.of(x[:4])
    merged.add(Moments.of(x[4:]))
    assert merged.rows == whole.rows == x.numel() // 4
    flat = x.double().flatten(0, -2)
    for moments in (whole, merged):
        torch.testing.assert_close(moments.mean, flat.mean(dim=0))
        torch.testing.assert_close(moments.unbiased, flat.var(dim=0))
        torch.testing.assert_close(moments.biased, flat.var(dim=0, correction=0))
        torch.testing.assert_close(moments.second, flat.square().mean(dim=0))


@pytest.mark.parametrize("method", METHODS)
def test_ghost_batches_change_no_estimate(method: Method, pixels: Tensor) -> None:
    model = model_of()
    plain = estimate(model, batches_of(pixels), method).buffers
    whole = of_one_batch(model, pixels)
    set_ghost(model, 4)
    torch.testing.assert_close(estimate(model, batches_of(pixels), method).buffers, plain)
    torch.testing.assert_close(of_one_batch(model, pixels), whole, rtol=0.0, atol=0.0)
    assert {norm.ghost for norm in batch_norms(model)} == {4}


def test_blocks_that_do_not_run_have_no_statistics(pixels: Tensor) -> None:
    found = estimate(model_of("vitbn_oneblock", TINY), batches_of(pixels)).buffers
    assert any(name.startswith("transformer.layers.0.") for name in found)
    assert not any(name.startswith("transformer.layers.1.") for name in found)


class InterruptionError(Exception):
    """Somebody pressed Ctrl-C."""


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_estimate_leaves_all_as_it_was(method: Method, pixels: Tensor) -> None:
    model = model_of().train()
    batch_norms(model)[2].eval()
    batch_norms(model)[1].momentum = 0.3
    set_ghost(model, 4)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    calls: list[int] = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptionError

    hook = model.get_submodule("transformer.layers.1.0.norm").register_forward_hook(interrupt)
    last = batch_norms(model)[-1].register_forward_pre_hook(interrupt)
    with pytest.raises(InterruptionError):
        estimate(model, batches_of(pixels), method)
    hook.remove()
    last.remove()
    torch.testing.assert_close(model.state_dict(), before, rtol=0.0, atol=0.0)
    assert [module.training for module in model.modules()] == modes
    assert [norm.momentum for norm in batch_norms(model)][:3] == [0.1, 0.3, 0.1]
    assert {norm.ghost for norm in batch_norms(model)} == {4}
    hooks = [module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks), "hooks of the estimate are left"


def test_statistics_are_put_in_for_a_while_or_for_good(pixels: Tensor) -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    found: Population = estimate(model, batches_of(pixels))
    check = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6, check_dtype=False)
    with on_population(model, found):
        check({name: model.get_buffer(name) for name in found.buffers}, dict(found.buffers))
    torch.testing.assert_close(model.state_dict(), before, rtol=0.0, atol=0.0)
    found.put_into(model)
    check({name: model.get_buffer(name) for name in found.buffers}, dict(found.buffers))
