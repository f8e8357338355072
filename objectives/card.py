"""What a file of weights says of itself, so that the model can be built again from it alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.fold import fold
from models.norms import progressive_norms
from models.registry import variant
from models.switches import ImageShape, SwitchValue
from models.weights import fit_weights, read_weights
from objectives.images import Split
from objectives.precision import Precision
from objectives.recipe import PRECISION, TrainConfig

_KEY = "bnvit"  # under which safetensors keeps it


@dataclass(frozen=True)
class Card:
    """A model, the images it takes, and how they are scaled."""

    model: str
    switches: dict[str, SwitchValue]
    image: ImageShape
    mean: tuple[float, ...] | None = None  # of each channel in [0, 1]; None: pixels stay there
    std: tuple[float, ...] | None = None
    folded: bool = False  # the norms that can are folded already
    precision: Precision = PRECISION  # of the matrix products in training
    initialisation: str | None = None  # what training began with; None: not known

    def metadata(self) -> dict[str, str]:
        """For safetensors."""
        return {_KEY: json.dumps(asdict(self))}

    def build(self, lambda_at_end: bool = True) -> nn.Module:
        """The model with random weights, in the form whose weights the file holds.

        A PRepBN was folded only if its λ had come to its end.
        """
        chosen = variant(self.model)
        model = chosen.build(self.image, chosen.switches(**self.switches))  # type: ignore[arg-type]
        if not self.folded:
            return model
        for norm in progressive_norms(model):
            norm.set_progress(1.0 if lambda_at_end else 0.0)
        return fold(model).model

    def split(self, images: Tensor, labels: Tensor) -> Split:
        """Images as this model's training saw them."""
        if self.mean is None or self.std is None:
            return Split(images, labels)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return Split(images, labels, mean, std)


def card_of(config: TrainConfig, image: ImageShape, train: Split) -> Card:
    """The card of a model that `config` trained on `train`."""
    mean, std = (
        None if values is None else tuple(float(value) for value in values.flatten())
        for values in (train.mean, train.std)
    )
    switches = asdict(config.switches)
    return Card(
        config.model,
        switches,
        image,
        mean,
        std,
        precision=config.precision,
        initialisation=config.initialisation,
    )


def save(path: Path, state: Mapping[str, Tensor], card: Card | None) -> None:
    """Write weights with their card, if they have one. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        save_file(contiguous, path, metadata=None if card is None else card.metadata())
    except SafetensorError as error:  # it has no other for a full disk
        raise OSError(str(error)) from error


def load(path: Path) -> tuple[Card, nn.Module]:
    """The card and the model, in evaluation mode, of a file that `save` wrote or of a checkpoint.

    Raises InputError for any other file.
    """
    state = read_weights(str(path))
    values = _written(path)
    if values is None:
        raise InputError(
            f"{path} does not say which model it is of, as files do that this version writes"
        )
    try:
        card = _card(values)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path} says of its model what cannot be read ({error!r})") from error
    model = card.build(not any(key.endswith(".lam") for key in state)).eval()
    fit_weights(model, state, card.model)
    return card, model


def _written(path: Path) -> dict[str, Any] | None:
    """The values of the card in a file that holds weights."""
    if path.suffix != ".safetensors":
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("card") if isinstance(state, dict) else None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return json.loads(metadata[_KEY]) if _KEY in metadata else None


def _card(values: dict[str, Any]) -> Card:
    mean, std = (None if values[name] is None else tuple(values[name]) for name in ("mean", "std"))
    image = ImageShape(**values["image"])
    return Card(
        values["model"],
        values["switches"],
        image,
        mean,
        std,
        values["folded"],
        values.get("precision", PRECISION),  # which earlier versions did not write, as the next
        values.get("initialisation"),
    )
