"""`vit` is vit-pytorch's ViT: the same names, the same numbers."""

from typing import Any

import pytest
import torch

from models.registry import variant
from models.switches import ViTSwitches
from models.torchvision_import import datasets
from objectives.datasets import MNIST_SHAPE


@pytest.fixture(scope="module")
def reference() -> Any:
    """vit-pytorch's model with random affine norms, so that a misplaced one would show."""
    datasets()  # vit_pytorch imports torchvision, which may need help
    from vit_pytorch import ViT

    torch.manual_seed(0)
    model = ViT(
        image_size=28,
        patch_size=7,
        num_classes=10,
        dim=64,
        depth=6,
        heads=8,
        mlp_dim=128,
        channels=1,
        dim_head=64,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def test_weights_of_vit_pytorch_load_strictly_and_give_the_same_logits(reference: Any) -> None:
    model = variant("vit").build(MNIST_SHAPE, ViTSwitches()).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    images = torch.rand(8, 1, 28, 28)

    with torch.no_grad():
        ours, theirs = model(images), reference(images)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2, "the images must not all look alike"
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5)


def test_gradients_are_those_of_vit_pytorch(reference: Any) -> None:
    model = variant("vit").build(MNIST_SHAPE, ViTSwitches())
    model.load_state_dict(reference.state_dict())
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    for each in (model, reference):
        each.zero_grad()
        torch.nn.functional.cross_entropy(each(images), labels).backward()

    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5)
