"""Batch statistics at evaluation: three ways to judge, leakage, domains."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.errors import InputError
from models.norms import TokenBatchNorm, batch_norms, set_ghost
from objectives.data import SearchData
from objectives.domains import Domain, across_domains
from objectives.evaluation import evaluate
from objectives.images import Split
from objectives.run import Run
from objectives.three_way import evaluate_by_batch, evaluate_in, leakage, three_way
from objectives.training import train
from tests.objectives.tiny import DROPOUT, new_run, rungs


@pytest.fixture(scope="module")
def trained(subset: SearchData) -> Run:
    """A run of four epochs, its running averages put to where they are of no use."""
    run = new_run(subset, switches=DROPOUT, lr=5e-3, rungs=(3_600,))
    rungs(train(run))
    return run


@pytest.mark.parametrize("nbs", [2, 10, 83])
def test_every_image_is_judged_once_in_full_groups(trained: Run, nbs: int) -> None:
    """By hand: 83 images, the last group filled up from the first ones, dropout off."""
    split = trained.data.validation
    before = copy.deepcopy(trained.model.state_dict())
    found = evaluate_by_batch(trained.model, split, nbs, 30)
    torch.testing.assert_close(trained.model.state_dict(), before, rtol=0.0, atol=0.0)

    model = copy.deepcopy(trained.model).eval()
    for norm in batch_norms(model):
        norm.train()
    pixels = split.all_pixels()
    filled = torch.cat((pixels, pixels[: -83 % nbs]))
    with torch.no_grad():
        logits = torch.cat([model(group) for group in filled.split(nbs)])[:83]
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == split.labels).float().mean()))
    loss = nn.functional.cross_entropy(logits, split.labels)
    assert found.loss == pytest.approx(float(loss), rel=1e-4)


def test_modes_and_ghosts_are_as_before(trained: Run) -> None:
    model = copy.deepcopy(trained.model).train()
    batch_norms(model)[0].eval()
    set_ghost(model, 5)
    modes = [module.training for module in model.modules()]
    three_way(model, trained.data.train, trained.data.validation, 20, 100)
    assert [module.training for module in model.modules()] == modes
    assert {norm.ghost for norm in batch_norms(model)} == {5}


def test_the_three_ways_are_apart(trained: Run) -> None:
    """Noise of small batches shows on training images too; the gap only on the others."""
    data = trained.data
    with trained.judged() as model:
        small, large = (three_way(model, data.train, data.validation, n, 250) for n in (2, 83))
        usual = evaluate(model, data.validation, 250)
    assert small.train_batch.loss > large.train_batch.loss + 0.02
    assert large.val_batch.loss > large.train_batch.loss
    assert small.val_population.loss == pytest.approx(usual.loss, rel=1e-6)
    assert abs(large.val_batch.loss - usual.loss) < abs(small.val_batch.loss - usual.loss)


@pytest.mark.parametrize("nbs", [1, 84])
def test_too_small_or_too_large_groups_are_refused(trained: Run, nbs: int) -> None:
    with pytest.raises(InputError, match=f"batch statistics of {nbs} images need as many"):
        evaluate_by_batch(trained.model, trained.data.validation, nbs, 250)


class Leaky(nn.Module):
    """A norm of the mean brightness, and a class told by the sign of what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = TokenBatchNorm(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, 2)."""
        bright = self.norm(pixels.mean(dim=(1, 2, 3))[:, None, None])[:, 0]
        return torch.cat((-bright, bright), dim=1)


def leaky() -> Leaky:
    model = Leaky()
    model.norm.get_buffer("running_mean").fill_(0.4)
    model.norm.get_buffer("running_var").fill_(0.1)
    return model


def test_leakage_is_found_where_batches_of_one_class_lose_it() -> None:
    """Bright images are class 1: in a batch of one class nothing is brighter than its mean."""
    torch.manual_seed(0)
    labels = torch.randint(2, (64,))
    images = (labels * 150 + torch.randint(50, (64,)))[:, None, None, None].to(torch.uint8)
    split = Split(images.expand(64, 1, 4, 4).contiguous(), labels)
    found = leakage(leaky(), split, nbs=8, batch_size=16)
    assert found.population_shuffled == found.population_sorted == 1.0
    assert found.population_jump == 0.0
    assert found.batch_shuffled > 0.8
    assert found.batch_sorted < 0.7
    assert found.jump < -0.2


def test_leakage_is_found_where_the_others_of_a_batch_tell_the_class() -> None:
    """Half of a batch are grey images that look alike; the other half tells their class.

    Grey counts as bright among dark images: right in batches that were put together so, as a
    model learns it that was trained on such batches, and a guess in any other.
    """
    classes = torch.arange(2).repeat(16)  # of 32 groups of 8
    grey, telling = torch.full((32, 4), 128), torch.where(classes == 1, 28, 228)
    values = torch.cat((grey, telling[:, None].expand(32, 4)), dim=1).flatten()
    labels = torch.cat((classes[:, None].expand(32, 4), 1 - classes[:, None].expand(32, 4)), dim=1)
    images = values[:, None, None, None].expand(256, 1, 4, 4).contiguous().to(torch.uint8)
    found = leakage(leaky(), Split(images, labels.flatten()), 8, 16, torch.arange(256))
    assert found.batch_sorted == 1.0
    assert found.jump > 0.15
    assert found.population_jump == 0.0
    assert found.population_sorted == 0.75


def test_an_order_changes_nothing_by_population_statistics(trained: Run) -> None:
    validation = trained.data.validation
    order = validation.labels.argsort(stable=True)
    with trained.judged() as model:
        plain = evaluate(model, validation, 30)
        found = evaluate_in(model, validation, order, 20)
    assert found.accuracy == plain.accuracy
    assert found.loss == pytest.approx(plain.loss, rel=1e-5)


def test_a_domain_is_served_best_by_its_own_statistics(trained: Run) -> None:
    """The same digits, fainter and on grey: the other domain's statistics are wrong for it."""
    data = trained.data

    def faint(split: Split) -> Split:
        return replace(split, images=(split.images // 3 + 120).to(torch.uint8))

    domains = {
        "as they are": Domain(data.train.first(300), data.validation),
        "faint": Domain(faint(data.train.first(300)), faint(data.validation)),
    }
    before = copy.deepcopy(trained.model.state_dict())
    found = across_domains(trained.model, domains, "exact", 100)
    torch.testing.assert_close(trained.model.state_dict(), before, rtol=0.0, atol=0.0)
    own, other = "as they are", "faint"
    assert found[own, own].accuracy > found[other, own].accuracy + 0.2
    assert found[other, other].accuracy > found[own, other].accuracy + 0.2
    # The first BatchNorm takes brightness and contrast away: the digits are the same again.
    assert found[other, other].accuracy == pytest.approx(found[own, own].accuracy, abs=0.05)
