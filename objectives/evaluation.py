"""Loss and accuracy of a model on a split, without host synchronisation until the end."""

from collections.abc import Iterable
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
    with modes_kept(model):
        model.eval()
        batches = feed(split, in_order(len(split), batch_size))
        return summed((model(pixels), labels) for pixels, labels in batches)


def summed(answers: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """The means over all `answers`: logits (B, classes) and labels (B,)."""
    counted, totals = 0, None
    for logits, labels in answers:
        sums = _sums(logits, labels)
        totals = sums if totals is None else totals.add_(sums)
        counted += len(labels)
    assert totals is not None, "no images to evaluate on"
    loss, top1, top5 = (totals / counted).tolist()
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
