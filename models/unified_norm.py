"""Unified Normalization: BatchNorm without a mean, smoothed over steps to train stably."""

from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 4  # steps whose statistics are averaged
SETTLED = 1_000  # steps before the gradient is compensated for a moment unlike the running one
MOST_COMPENSATION = 5.0


class UnifiedNorm(nn.Module):
    """γ·x / √(ψ + ε) + β, ψ a second moment of each feature: (B, N, C) → (B, N, C).

    In training ψ is the geometric mean of the last 4 steps' second moments; in the first
    `warm_up` steps, and where a step is an outlier, the step's own. A step is an outlier where the
    arithmetic mean exceeds the geometric one by more than the spread of the steps before allows;
    it is left out of the window. At evaluation ψ is a running average, so that the norm can fold.
    The gradient uses averages over steps too. No step waits for the device.

    Source: Yang et al., "Unified Normalization for Accelerating and Stabilizing Transformers",
    ACM MM 2022, with the outlier rule and constants of its published code.
    """

    running_moment: Tensor
    moments: Tensor
    gradients: Tensor
    gradient: Tensor
    steps: Tensor

    def __init__(
        self, dim: int, warm_up: int = 4_000, momentum: float = 0.1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.warm_up = warm_up
        self.momentum = momentum  # torch's convention: weight of the newest step
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_moment", torch.ones(dim))
        self.register_buffer("moments", torch.zeros(WINDOW, dim))
        self.register_buffer("gradients", torch.zeros(WINDOW, dim))
        self.register_buffer("gradient", torch.zeros(dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def is_warm(self) -> Tensor:
        """Whether there are enough steps to average over ()."""
        return (self.steps >= self.warm_up) & (self.steps > WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, N, C)."""
        if not self.training:
            return x * (self.weight * (self.running_moment + self.eps).rsqrt()) + self.bias
        with torch.no_grad():
            self.steps += 1
            moment, is_outlier = self._moment(x)
            ratio = self._compensation(moment, is_outlier)
            self.running_moment.lerp_(moment, self.momentum)
        z: Tensor = _Normalize.apply(x, moment, is_outlier, ratio, self)  # type: ignore[no-untyped-call]
        # The gradient of γ is compensated as well.
        weight = self.weight.detach() + (self.weight - self.weight.detach()) * ratio
        return z * weight + self.bias

    def _moment(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ψ (C,) of this step, and whether the step is an outlier ()."""
        own = second_moment(x.detach())
        spread = self.moments.sqrt().var()
        newest = (self.steps % WINDOW).view(1)
        self.moments.index_copy_(0, newest, own[None])
        geometric = self.moments.clamp_min(1e-30).log().mean(dim=0).exp()
        is_warm = self.is_warm
        is_outlier = is_warm & (self.moments.mean(dim=0) - geometric > spread * WINDOW).any()
        kept = torch.where(is_outlier, self.running_moment, own)
        self.moments.index_copy_(0, newest, kept[None])
        smooth = is_warm & ~is_outlier
        return torch.where(smooth, geometric, own), is_outlier

    def _compensation(self, moment: Tensor, is_outlier: Tensor) -> Tensor:
        """How much larger the gradient is to be where ψ departs from its running average (C,)."""
        ratio = ((moment + self.eps) / (self.running_moment + self.eps)).sqrt()
        ratio = ratio.clamp(1.0 / MOST_COMPENSATION, MOST_COMPENSATION)
        unsettled = (self.steps <= max(SETTLED, self.warm_up)) | is_outlier
        return torch.where(unsettled, torch.ones_like(ratio), ratio)


def second_moment(x: Tensor) -> Tensor:
    """ψ (C,) of tokens (B, N, C), in float32 at least."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return exact.square().flatten(0, -2).mean(dim=0)


def unified_norms(model: nn.Module) -> list[UnifiedNorm]:
    """The UNs of `model`, in order of registration."""
    return [module for module in model.modules() if isinstance(module, UnifiedNorm)]


class _Normalize(torch.autograd.Function):
    """x / √(ψ + ε), the gradient's share along z averaged over steps."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, moment: Tensor, is_outlier: Tensor, ratio: Tensor, norm: UnifiedNorm
    ) -> Tensor:
        scale = (moment + norm.eps).rsqrt()
        z = x * scale
        ctx.norm = norm
        ctx.save_for_backward(z, scale, is_outlier, ratio)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        norm: UnifiedNorm = ctx.norm
        z, scale, is_outlier, ratio = ctx.saved_tensors
        grad = grads[0] * ratio
        own = (grad * z).flatten(0, -2).mean(dim=0)
        newest = (norm.steps % WINDOW).view(1)
        norm.gradients.index_copy_(0, newest, torch.where(is_outlier, norm.gradient, own)[None])
        smooth = norm.is_warm & ~is_outlier
        mean = torch.where(smooth, norm.gradients.mean(dim=0), own)
        norm.gradient.lerp_(mean, norm.momentum)
        along = torch.where(is_outlier, own, norm.gradient)
        return (grad - along * z) * scale, None, None, None, None
