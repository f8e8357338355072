"""The model that a run begins with: random, from trained weights, or converted from them."""

import hashlib
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
from models.weights import fit_weights, fitted, read_weights
from objectives.data import SearchData
from objectives.recipe import InitialWeights, TrainConfig


def initial_model(config: TrainConfig, data: SearchData) -> nn.Module:
    """The model of `config` on the data's device.

    A conversion estimates statistics on the images that recalibration uses. Raises InputError
    where the weights do not fit, or are not those that the study was begun with.
    """
    chosen = variant(config.model)
    device = data.train.device
    initial = config.initial
    if initial is None:
        return chosen.build(data.shape, config.switches).to(device)
    check_weights(initial)
    state = read_weights(initial.source)
    model = _target(initial, chosen, data.shape, config.switches, state)
    fit_weights(model, state, _called(initial, chosen), initial.new_head)
    if initial.convert:
        pixels = data.train.first(config.recalibration_images).all_pixels()
        convert(model.to(device), chosen.parts, config.switches, pixels)
    elif chosen.parts.weight_norm and not _has_weight_norm(state):
        add_weight_norm(model)
    return model.to(device)


def initial_weights(source: str, chosen: Variant, convert_: bool, new_head: bool) -> InitialWeights:
    """The weights that `source` names, checked to be there; `timm` means the backbone's own.

    Raises InputError.
    """
    if source == TIMM.removesuffix(":"):
        name = chosen.timm_name
        if not name:
            raise InputError(f"timm has no weights of {chosen.parts.backbone}; give a file")
        source = f"{TIMM}{name}"
    if source.startswith(TIMM):
        return InitialWeights(source, None, convert_, new_head)
    path = Path(source).expanduser().absolute()
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a file of weights, or timm:NAME")
    return InitialWeights(str(path), _checksum(path), convert_, new_head)


def check_fit(
    initial: InitialWeights, chosen: Variant, image: ImageShape, switches: Switches
) -> None:
    """Raise InputError where the weights are not of that model, before anything is begun."""
    state = read_weights(initial.source)
    with torch.device("meta"):
        model = _target(initial, chosen, image, switches, state)
    fitted(model, state, _called(initial, chosen), initial.new_head)


def check_weights(initial: InitialWeights) -> None:
    """Raise InputError where the file is not, or no longer, the one that was meant."""
    if initial.checksum is None:
        return
    path = Path(initial.source)
    if not path.is_file():
        raise InputError(f"the study begins with the weights in {path}; put that file there")
    if _checksum(path) != initial.checksum:
        raise InputError(f"{path} is not the file that the study was begun with; put that there")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


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
