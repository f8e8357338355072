"""Models with a class and a distillation token, each with a head: timm's distilled class."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.modes import modes_kept


def has_two_heads(model: nn.Module) -> bool:
    """Whether `model` has a distillation token with a head of its own."""
    return hasattr(model, "head_dist")


def show_both_heads(model: nn.Module) -> None:
    """Let `model` give both heads' logits apart in training; in evaluation it gives their mean.

    timm asks its own mode only: also where the rest is in evaluation mode, as in a linear probe.
    """
    distilled: Any = model
    distilled.set_distilled_training(True)
    model.training = True


def token_cosines(model: nn.Module, pixels: Tensor) -> Tensor:
    """Cosines (B,) of class and distillation token behind the final norm, in evaluation mode.

    Of images (B, C, H, W). DeiT (Touvron et al. 2021, arXiv 2012.12877, section 4) found 0.93 at
    the last layer, and 0.999 where both tokens learn from the labels.
    """
    distilled: Any = model
    with modes_kept(model):
        model.eval()
        tokens = distilled.forward_features(pixels)  # (B, 2 + patches, C)
    return F.cosine_similarity(tokens[:, 0].float(), tokens[:, 1].float(), dim=-1)
