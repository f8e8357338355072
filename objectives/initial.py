"""The model that a run begins with: random, from trained weights, or converted from them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.convert import convert
from models.errors import InputError
from models.grammar import TIMM
from models.registry import Variant, variant
from models.surgery import add_weight_norm
from models.switches import ImageShape, Switches
from models.weights import HEADS, TOKENS, fit_weights, fitted, read_weights, weights_checksum
from objectives.data import SearchData
from objectives.recipe import InitialWeights, TrainConfig

INITIAL_STD = 0.02


def initial_model(config: TrainConfig, data: SearchData) -> nn.Module:
    """The model of `config` on the data's device.

    A conversion estimates statistics on the images that recalibration uses. Raises InputError
    where the weights do not fit, or are not those that the study was begun with.
    """
    chosen = variant(config.model)
    device = data.train.device
    initial = config.initial
    if initial is None:
        model = chosen.build(data.shape, config.switches)
        if config.recipe.init == "trunc_normal":
            draw_truncated(model)
        return model.to(device)
    state = read_initial(initial)
    model = _target(initial, chosen, data.shape, config.switches, state)
    fit_weights(model, state, _called(initial, chosen), initial.new_head)
    if initial.convert:
        pixels = data.train.first(config.recalibration_images).all_pixels()
        convert(model.to(device), chosen.parts, config.switches, pixels)
    elif chosen.parts.weight_norm and not _has_weight_norm(state):
        add_weight_norm(model)
    return model.to(device)


def draw_truncated(model: nn.Module) -> None:
    """Draw linear maps, tokens and learned positions from N(0, 0.02²), biases 0.

    As torch's `trunc_normal_` does, whose cut at ±2 lies a hundred standard deviations out. Source:
    DeiT (Touvron et al. 2021) after Hanin & Rolnick 2018. timm's models begin so already.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in TOKENS:
            nn.init.trunc_normal_(parameter, std=INITIAL_STD)


def train_head_only(model: nn.Module) -> None:
    """Leave only the classifier trainable, and the rest in evaluation mode: a linear probe."""
    model.eval()
    model.requires_grad_(False)
    for path, module in model.named_modules():
        if path in HEADS and isinstance(module, nn.Linear):
            module.train().requires_grad_(True)


def initial_weights(
    source: str, chosen: Variant, convert_: bool, new_head: bool
) -> tuple[InitialWeights, dict[str, Tensor]]:
    """The weights that `source` names, read; `timm` means the backbone's own.

    Raises InputError.
    """
    if source == TIMM.removesuffix(":"):
        if not chosen.timm_name:
            raise InputError(f"timm has no weights of {chosen.parts.backbone}; give a file")
        source = f"{TIMM}{chosen.timm_name}"
    if not source.startswith(TIMM):
        source = str(Path(source).expanduser().absolute())
    state = read_weights(source)
    return InitialWeights(source, weights_checksum(state), convert_, new_head), state


def check_fit(
    initial: InitialWeights,
    state: Mapping[str, Tensor],
    chosen: Variant,
    image: ImageShape,
    switches: Switches,
) -> None:
    """Raise InputError where the weights are not of that model, before anything is begun."""
    with torch.device("meta"):
        model = _target(initial, chosen, image, switches, state)
    fitted(model, state, _called(initial, chosen), initial.new_head)


def read_initial(initial: InitialWeights) -> dict[str, Tensor]:
    """The weights, which are those that were meant; raises InputError where they are not here."""
    state = read_weights(initial.source)
    if initial.checksum is not None and weights_checksum(state) != initial.checksum:
        raise InputError(
            f"{initial.source} has not the weights that the study was begun with; "
            "put the same file there"
        )
    return state


def _target(
    initial: InitialWeights,
    chosen: Variant,
    image: ImageShape,
    switches: Switches,
    state: Mapping[str, Tensor],
) -> nn.Module:
    """The model whose weights the file should hold."""
    if initial.convert:
        return chosen.build_twin(image, switches)
    return chosen.build(image, switches, weight_norm=_has_weight_norm(state))


def _called(initial: InitialWeights, chosen: Variant) -> str:
    return f"the LayerNorm twin of {chosen.name}" if initial.convert else chosen.name


def _has_weight_norm(state: Mapping[str, Tensor]) -> bool:
    return any(".parametrizations." in key for key in state)
