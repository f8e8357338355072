"""Loss and accuracy of a model on a split, without host synchronisation until the end."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.modes import modes_kept
from models.two_heads import token_cosines
from objectives.feed import feed, in_order
from objectives.images import Split


@dataclass(frozen=True)
class Evaluation:
    """Means over a split; accuracies are shares in [0, 1]."""

    loss: float
    accuracy: float
    top5_accuracy: float


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, batch_size: int) -> Evaluation:
    """Evaluate `model` in evaluation mode on `split`; its modes are restored."""
    totals = torch.zeros(3, dtype=sums_dtype(split.device), device=split.device)
    with modes_kept(model):
        model.eval()
        for pixels, labels in feed(split, in_order(len(split), batch_size)):
            totals += _sums(model(pixels), labels)
    loss, top1, top5 = (totals / len(split)).tolist()
    return Evaluation(loss, top1, top5)


@torch.inference_mode()
def token_cosine(model: nn.Module, split: Split, batch_size: int) -> float:
    """Mean over `split` of the cosine between class and distillation token, in [-1, 1]."""
    total = torch.zeros((), dtype=sums_dtype(split.device), device=split.device)
    for pixels, _ in feed(split, in_order(len(split), batch_size)):
        total += token_cosines(model, pixels).sum()
    return float(total) / len(split)


def sums_dtype(device: torch.device) -> torch.dtype:
    """For sums over many batches: float64, where the device has it; Apple's GPUs have not."""
    return torch.float32 if device.type == "mps" else torch.float64


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed loss, top-1 and top-5 hits of logits (B, classes): (3,), for long sums."""
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    sums = torch.stack((loss, ranked[:, 0].sum(), ranked.sum()))
    return sums.to(sums_dtype(logits.device))
