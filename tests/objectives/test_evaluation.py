"""Loss and accuracy against a direct computation over the whole split."""

import pytest
import torch
from torch.nn import functional as F

from models.registry import ARTICLE, variant
from models.switches import ImageShape
from models.vit import ViT
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.evaluation import evaluate, sums_dtype
from objectives.images import Split, as_pixels
from tests.conftest import TINY
from tests.objectives.tiny import DROPOUT


def model_of(name: str) -> ViT:
    """An untrained model whose logits are spread out, in training mode and with dropout."""
    torch.manual_seed(0)
    model = ARTICLE[name](MNIST_SHAPE, DROPOUT)
    with torch.no_grad():
        model.mlp_head.weight.mul_(5.0)
    return model


@pytest.mark.parametrize("name", ARTICLE)
def test_it_equals_a_direct_computation(name: str, subset: SearchData) -> None:
    model, labels = model_of(name), subset.validation.labels
    found = evaluate(model, subset.validation, batch_size=20)

    with torch.no_grad():
        logits = model.eval()(as_pixels(subset.validation.images)).double()
    chosen = logits.gather(1, labels[:, None])
    better = (logits > chosen).sum(dim=1)  # classes that are ranked above the right one
    loss = (logits.exp().sum(dim=1).log() - chosen[:, 0]).mean()
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.accuracy == pytest.approx(float((better == 0).sum()) / 83)
    assert found.top5_accuracy == pytest.approx(float((better < 5).sum()) / 83)
    assert 0.0 < found.accuracy < found.top5_accuracy < 1.0


def test_it_does_not_depend_on_the_batch_size(subset: SearchData) -> None:
    model = model_of("vitbn")
    whole = evaluate(model, subset.validation, batch_size=1_000)
    for batch_size in (1, 7, 83):
        found = evaluate(model, subset.validation, batch_size)
        assert found.loss == pytest.approx(whole.loss, rel=1e-5)
        assert (found.accuracy, found.top5_accuracy) == (whole.accuracy, whole.top5_accuracy)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_nothing_else_changes(training: bool, subset: SearchData) -> None:
    model = model_of("vitbn").train(training)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    evaluate(model, subset.validation, batch_size=50)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), rng)
    torch.testing.assert_close(model.state_dict(), state, rtol=0.0, atol=0.0)


def test_a_module_frozen_within_a_training_model_stays_frozen(subset: SearchData) -> None:
    model = model_of("vitbn").train()
    model.transformer.norm.eval()
    evaluate(model, subset.validation, batch_size=83)
    assert not model.transformer.norm.training


def test_all_is_in_the_top_five_where_there_are_no_more_classes() -> None:
    model = variant("vit").build(ImageShape(channels=1, size=28, classes=3), TINY)
    split = Split(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 2, 2]))
    found = evaluate(model, split, batch_size=3)
    with torch.no_grad():
        loss = F.cross_entropy(model.eval()(as_pixels(split.images)), split.labels)
    assert found.top5_accuracy == 1.0
    assert found.loss == pytest.approx(float(loss), rel=1e-5)


def test_sums_are_of_a_type_that_the_device_has() -> None:
    assert sums_dtype(torch.device("cpu")) == torch.float64
    assert sums_dtype(torch.device("mps")) == torch.float32  # Apple's GPUs have no float64
