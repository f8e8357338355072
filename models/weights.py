"""Trained weights from a file, or from timm by name, fitted to a model."""

import hashlib
import math
import pickle
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import InputError, few, first_line
from models.grammar import TIMM
from models.torchvision_import import timm_module
from models.vit import ViT

TOKENS = ("cls_token", "dist_token", "pos_embedding", "pos_embed")  # names of learned ones
HEADS = ("head", "head_dist", "head.fc", "mlp_head")
_WRAPPERS = ("model", "state_dict")  # keys under which files keep the weights
# What torch.load and safetensors raise for what is no file of theirs.
_READ_ERRORS = (
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    AttributeError,
)


def read_weights(source: str) -> dict[str, Tensor]:
    """Tensors by name from `source`: a file, or `timm:NAME`, which is downloaded.

    Files are read without running code that they may hold. Raises InputError.
    """
    if source.startswith(TIMM):
        return pretrained(source.removeprefix(TIMM)).state_dict()
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a file of weights, or timm:NAME")
    try:
        state = _read(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: it holds more than tensors and could run code when loaded; "
            "save its state_dict alone, best as safetensors"
        ) from error
    except _READ_ERRORS as error:
        reason = f"{type(error).__name__}: {first_line(str(error))}"
        raise InputError(f"{path} cannot be read as weights ({reason})") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError(f"{path} holds no weights by name; save a model's state_dict")
    return {key.removeprefix("module."): value for key, value in state.items()}


def pretrained(name: str) -> nn.Module:
    """The model of timm's called `name` with its published weights, downloaded.

    Raises InputError.
    """
    models = timm_module("models")
    if not models.is_model(name):
        raise InputError(f"timm has no model '{name}'; see timm.list_models(pretrained=True)")
    import_module("huggingface_hub").utils.logging.set_verbosity_error()  # errors are raised too
    try:
        model: nn.Module = models.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client and what lies beneath raise many kinds
        raise InputError(
            f"the weights timm:{name} cannot be downloaded ({first_line(str(error))}); "
            "fetch them where the hub can be reached, and give the file or bring the hub's cache"
        ) from error
    return model


def fit_weights(
    model: nn.Module, state: Mapping[str, Tensor], name: str, new_head: bool = False
) -> None:
    """Load `state` into `model`, called `name`; `fitted` says how, and what it raises."""
    model.load_state_dict(fitted(model, state, name, new_head))


def fitted(
    model: nn.Module, state: Mapping[str, Tensor], name: str, new_head: bool = False
) -> dict[str, Tensor]:
    """`state` as `model`, called `name`, can load it: embeddings of positions are resampled.

    `new_head` keeps the heads of the model. Raises InputError naming what differs.
    """
    given = _resampled(model, state)
    mine = model.state_dict()
    if new_head:
        heads = tuple(f"{head}." for head in HEADS)
        given = {key: v for key, v in given.items() if not key.startswith(heads)}
        given |= {key: value for key, value in mine.items() if key.startswith(heads)}
    _check_classes(mine, given)
    missing = [key for key in mine if key not in given]
    unexpected = [key for key in given if key not in mine]
    sizes = [
        f"{key} is {_shape(given[key])}, not {_shape(mine[key])}"
        for key in mine
        if key in given and mine[key].shape != given[key].shape
    ]
    if missing or unexpected or sizes:
        told = [
            f"{word} {few(keys)}"
            for word, keys in (
                ("they lack", missing),
                ("they have besides", unexpected),
                ("", sizes),
            )
            if keys
        ]
        hint = ""
        if any("running" in key or ".bn." in key for key in missing):
            hint = "; --convert makes a BatchNorm model of LayerNorm weights"
        elif side := _other_patch(model, given):
            hint = f"; --set patch_size={side} keeps the patches that they were trained with"
        raise InputError(f"the weights are not of {name}: {'; '.join(told).strip()}{hint}")
    return given


def weights_checksum(state: Mapping[str, Tensor]) -> str:
    """A short digest of names and numbers, whatever file they came in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(path, map_location="cpu", weights_only=True)


def _resampled(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with position embeddings for as many patches as `model` has."""
    given = dict(state)
    if type(model).__name__ == "SwinTransformer":
        swin = timm_module("models.swin_transformer")
        with warnings.catch_warnings(action="ignore"):  # of torch about timm's interpolation
            try:
                filtered: dict[str, Tensor] = swin.checkpoint_filter_fn(given, model)
            except AttributeError:  # it has blocks that the model lacks
                return given
        return filtered
    _resample_patches(model, given)
    key = "pos_embedding" if isinstance(model, ViT) else "pos_embed"
    old, mine = given.get(key), model.state_dict().get(key)
    if old is not None and mine is not None and key in dict(model.named_buffers()):
        if old.shape == mine.shape and not torch.allclose(old, mine):
            raise InputError("the weights have learned positions; leave out --set pos_emb=pe1d")
        return given | {key: mine}
    if old is None or mine is None or old.shape == mine.shape or old.shape[-1] != mine.shape[-1]:
        return given
    prefix = 1 if isinstance(model, ViT) else _prefix_tokens(model)
    patches, others = (tensor.shape[-2] - prefix for tensor in (mine, old))
    side = math.isqrt(patches)
    if others < 1 or math.isqrt(others) ** 2 != others:  # of another kind of model
        return given
    resample = timm_module("layers").resample_abs_pos_embed
    flat = old.reshape(1, *old.shape[-2:])
    given[key] = resample(flat, (side, side), num_prefix_tokens=prefix).reshape(mine.shape)
    return given


def _resample_patches(model: nn.Module, given: dict[str, Tensor]) -> None:
    """Give the convolution of the patch embedding the size of `model`'s, in place."""
    key = "patch_embed.proj.weight"
    old, mine = given.get(key), model.state_dict().get(key)
    if old is None or mine is None or old.dim() != 4 or old.shape[:2] != mine.shape[:2]:
        return
    if old.shape != mine.shape:
        resample = timm_module("layers").resample_patch_embed
        given[key] = resample(old, list(mine.shape[2:]), antialias=True)


def _other_patch(model: nn.Module, given: Mapping[str, Tensor]) -> int:
    """The patch size in pixels of weights whose patches are not the model's; 0: not known.

    Patches of the article's family are flattened and normed, and cannot be resampled.
    """
    rows = given.get("to_patch_embedding.1.weight")  # one number for each of a patch's
    if not isinstance(model, ViT) or rows is None:
        return 0
    mine = model.get_parameter("to_patch_embedding.1.weight")
    rearrange: Any = model.to_patch_embedding[0]
    side = rearrange.axes_lengths["p1"] * math.sqrt(len(rows) / len(mine))
    return int(side) if side.is_integer() and len(rows) != len(mine) else 0


def _prefix_tokens(model: Any) -> int:
    """How many of the position embeddings are not of patches."""
    if type(model).__name__ == "Cait" or getattr(model, "no_embed_class", False):
        return 0
    return int(model.num_prefix_tokens)


def _check_classes(mine: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    for head in HEADS:
        key = f"{head}.weight"
        if key in mine and key in given and len(mine[key]) != len(given[key]):
            raise InputError(
                f"the weights are for {len(given[key])} classes, the data have {len(mine[key])}; "
                "--new-head starts the head anew"
            )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
