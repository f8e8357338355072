"""Every block runs and every parameter learns; a model that returns early is found out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.profile import profile
from models.registry import ARTICLE
from models.switches import ViTSwitches
from models.vit import Transformer, ViT
from objectives.datasets import MNIST_SHAPE

POOLS = ("cls", "mean")
POSITIONS = ("learn", "pe1d")

# A shift that a BatchNorm takes away again has no gradient but rounding. Where all norms are
# BatchNorms, that is every bias added to the residual stream of all tokens alike.
SHIFTS: dict[str, tuple[str, ...]] = {
    "vit": (),
    "vitbnffn": (".1.net.0.bias",),
    "vitbn": (
        "to_patch_embedding.1.bias",
        "to_patch_embedding.2.bias",
        ".0.to_out.0.bias",
        ".1.net.0.bias",
        ".1.net.4.bias",
    ),
}


def build(name: str, pool: str = "cls", pos_emb: str = "learn") -> ViT:
    """A model of four blocks."""
    torch.manual_seed(0)
    switches = ViTSwitches(depth=4, dim=32, pool=pool, pos_emb=pos_emb)  # type: ignore[arg-type]
    return ARTICLE[name](MNIST_SHAPE, switches)


def gradients(model: ViT) -> dict[str, float | None]:
    """The largest gradient of each parameter, in double precision so that rounding stands apart."""
    images = torch.rand(8, 1, 28, 28, dtype=torch.float64)
    F.cross_entropy(model.double()(images), torch.arange(8)).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: None if g is None else float(g.abs().max()) for name, g in grads.items()}


@pytest.mark.parametrize("pos_emb", POSITIONS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ARTICLE)
def test_every_block_executes_and_every_parameter_gets_a_gradient(
    name: str, pool: str, pos_emb: str
) -> None:
    model = build(name, pool, pos_emb)
    counted = profile(model, MNIST_SHAPE)
    found = gradients(model)

    assert counted.blocks_executed == counted.blocks == 4
    assert ("pos_embedding" in found) == (pos_emb == "learn")
    assert None not in found.values()
    unlearned = {parameter for parameter, size in found.items() if size is None or size < 1e-9}
    assert unlearned == {parameter for parameter in found if parameter.endswith(SHIFTS[name])}


def returns_inside_the_loop(self: Transformer, x: Tensor) -> Tensor:
    """The article's defect: the `return` of its BN models stood one level too deep."""
    for block in self.layers:
        x = block(x)
        return self.norm(x)
    return x


@pytest.mark.parametrize("name", ARTICLE)
def test_a_return_inside_the_block_loop_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    whole = profile(model, MNIST_SHAPE)
    monkeypatch.setattr(Transformer, "forward", returns_inside_the_loop)

    counted = profile(model, MNIST_SHAPE)
    assert (counted.blocks, counted.blocks_executed) == (4, 1)
    assert counted.parameters == whole.parameters
    assert counted.macs < whole.macs / 3
    idle = {parameter.split(".")[2] for parameter, size in gradients(model).items() if size is None}
    assert idle == {"1", "2", "3"}
