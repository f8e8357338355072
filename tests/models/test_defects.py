"""The article's defect as labelled models: six blocks are built, one runs."""

import pytest
import torch

from models.profile import profile
from models.registry import DEFECTS, variant
from objectives.datasets import MNIST_SHAPE
from tests.conftest import TINY


@pytest.mark.parametrize("name", DEFECTS)
def test_one_block_of_all_is_executed_and_counted(name: str) -> None:
    whole = variant(name.removesuffix("_oneblock")).build(MNIST_SHAPE)
    defect = variant(name).build(MNIST_SHAPE)
    defect.load_state_dict(whole.state_dict())  # the same parameters, all of them
    counted = profile(defect, MNIST_SHAPE)
    assert (counted.blocks, counted.blocks_executed) == (6, 1)
    assert counted.macs < profile(whole, MNIST_SHAPE).macs / 5


@pytest.mark.parametrize("name", DEFECTS)
def test_it_is_the_model_with_one_block(name: str) -> None:
    chosen = variant(name)
    torch.manual_seed(0)
    defect = chosen.build(MNIST_SHAPE, TINY).eval()
    for block in list(defect.transformer.layers)[1:]:  # type: ignore[union-attr, arg-type]
        for parameter in block.parameters():
            parameter.data.fill_(float("nan"))
    images = torch.rand(3, 1, 28, 28)
    assert defect(images).isfinite().all()
    assert chosen.uses_batch_norm == ("bn" in name)
    assert "one block runs" in chosen.norms
