"""What a run minimises: the labels' loss, on both heads where there are two, and a teacher's.

timm's `task.TokenDistillationTask` and `LogitDistillationTask` compute the same losses, which a
test compares; they are not used as they scale pixels by a model's `pretrained_cfg`, which ours lack
and which says nothing of the data's own mean, and as they know no two heads without a teacher.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.two_heads import has_two_heads, show_both_heads
from objectives.data import SearchData
from objectives.execution import Loss, autocast, loss_of
from objectives.images import Split
from objectives.recipe import TrainConfig
from objectives.recipes import Recipe
from objectives.teacher import Teacher, kept_teacher

Taught = Callable[[Tensor], Tensor]
"""The teacher's logits (B, classes) of pixels (B, C, H, W) as its student takes them."""


def training_loss(model: nn.Module, config: TrainConfig, data: SearchData) -> Loss:
    """What `model` minimises under `config`, on the data's device; prepares its two heads for it.

    Without a teacher the mean cross-entropy of the labels, of two heads the mean of theirs. With
    one, (1 - α) of that of the first head, and α of what the second one, or the only one, is from
    the teacher. Raises InputError where the teacher is not to be had.
    """
    recipe, precision = config.recipe, config.precision
    if has_two_heads(model):
        show_both_heads(model)
    taught = None
    if recipe.teacher is not None and recipe.distillation != "none":
        teacher = kept_teacher(recipe.teacher, config.teacher_checksum)
        teacher.check(data.shape)
        taught = taught_by(teacher, data.train)
    elif not has_two_heads(model):
        return loss_of(model, precision, recipe.label_smoothing)

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        with autocast(pixels.device, precision):
            first, last = _both(model(pixels))
            told = None if taught is None else taught(pixels).float()
        own = F.cross_entropy(first, labels, label_smoothing=recipe.label_smoothing)
        if told is None:
            other = F.cross_entropy(last, labels, label_smoothing=recipe.label_smoothing)
            return (own + other) / 2
        return (1 - recipe.alpha) * own + recipe.alpha * distance(last, told, recipe)

    return loss


def distance(logits: Tensor, told: Tensor, recipe: Recipe) -> Tensor:
    """How far a student's `logits` (B, classes) are from what its teacher `told`: ().

    Hard: the cross-entropy of the teacher's class (DeiT, Touvron et al. 2021, arXiv 2012.12877,
    equation 3), without label smoothing. Soft: τ²·KL(teacher ‖ student) at temperature τ, mean over
    images (Hinton et al. 2015, arXiv 1503.02531; DeiT's equation 2. DeiT's code divides by the
    classes, too).
    """
    if recipe.distillation == "hard":
        return F.cross_entropy(logits, told.argmax(dim=1))
    student, teacher = (F.log_softmax(each / recipe.tau, dim=1) for each in (logits, told))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * recipe.tau**2


def taught_by(teacher: Teacher, student: Split) -> Taught:
    """What `teacher` says, on the device of `student`, of pixels that are scaled as those."""
    model = teacher.model.to(student.device)
    mean, std = _scale(student.mean, student.std, teacher.channels)
    own_mean, own_std = _scale(teacher.mean, teacher.std, teacher.channels)
    scale = (std / own_std).to(student.device)
    shift = ((mean - own_mean) / own_std).to(student.device)
    is_same = torch.equal(mean, own_mean) and torch.equal(std, own_std)

    @torch.no_grad()
    def taught(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels if is_same else pixels * scale + shift)
        return logits

    return taught


def _both(outputs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (B, classes) of the first and the second head in float32; of one head twice those."""
    first, second = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    return first.float(), second.float()


def _scale(
    mean: Tensor | tuple[float, ...] | None, std: Tensor | tuple[float, ...] | None, channels: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, 1, 1) on the CPU; 0 and 1 where pixels stay in [0, 1]."""
    if mean is None or std is None:
        return torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)
    first, second = (torch.as_tensor(one, dtype=torch.float32).cpu() for one in (mean, std))
    return first.view(-1, 1, 1), second.view(-1, 1, 1)
