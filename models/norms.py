"""Token normalisations: modules that map (B, N, C) to (B, N, C), built by `Norm` callables.

All of them take any number of dimensions before the features, as Swin's (B, H, W, C).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.synced_norm import NormalizeOverProcesses, moments_over_processes

Norm = Callable[[int], nn.Module]
"""Builds the normalisation of C features; passed to the blocks so that variants share them."""


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm over batch and tokens for each feature: (B, N, C) → (B, N, C).

    Tokens are laid out as (B·N, C), the layout in which they are stored, so no transpose is
    needed. `momentum` follows torch: running = (1 - momentum)·running + momentum·batch.

    With `ghost` set, training takes the statistics of so many images at a time (ghost batches,
    Hoffer et al. 2017), as that many separate BatchNorms would; a last group has the rest, and one
    image alone joins the group before it. The running averages then take the mean of the groups'
    statistics, by their images.

    With `synced` set, training takes the statistics over the inputs of all processes of
    torch.distributed's default group (SyncBN), each of which must make the same calls. The outputs,
    gradients and running averages are those of one BatchNorm that is given all inputs.
    """

    ghost: int | None = None  # images
    synced: bool = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name for it
        """Normalise `input` (B, N, C)."""
        if self.training and self.synced:
            return self._over_processes(input)
        if self.training and self.ghost is not None and self.ghost < len(input):
            return self._by_groups(input, self.ghost)
        return super().forward(input.reshape(-1, self.num_features)).view(input.shape)

    def _over_processes(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        rows = x.reshape(-1, self.num_features).to(exact)
        with torch.no_grad():
            moments = moments_over_processes(rows)
            if self.track_running_stats:
                count = moments.count
                self._take(moments.mean, moments.var * (count / (count - 1)))
        out: Tensor = NormalizeOverProcesses.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.bias, moments, self.eps
        )
        return out.to(x.dtype).view(x.shape)

    def _by_groups(self, x: Tensor, size: int) -> Tensor:
        groups, rest = divmod(len(x), size)
        groups -= rest == 1  # of one image alone there may be no variance
        whole = groups * size
        parts = [x[:whole].unflatten(0, (-1, size))] if groups else []  # (groups, size, N, C)
        if whole < len(x):
            parts.append(x[None, whole:])
        normed = [self._normed(part) for part in parts]
        if self.track_running_stats:
            self._average(normed, len(x))
        return torch.cat([one.out.flatten(0, 1) for one in normed])

    def _normed(self, groups: Tensor) -> "_Normed":
        """Groups (G, images, N, C), each by its own statistics."""
        count, images = groups.shape[:2]
        channels = count * self.num_features
        # A group's features become channels of their own: one call for all groups.
        rows = groups.flatten(1, -2).movedim(0, 1).reshape(-1, channels)  # (images·N, G·C)
        exact = torch.promote_types(rows.dtype, torch.float32)
        mean, var = (rows.new_zeros(channels, dtype=exact) for _ in range(2))
        weight, bias = self.weight.repeat(count), self.bias.repeat(count)
        out = F.batch_norm(rows, mean, var, weight, bias, True, 1.0, self.eps)
        out = out.unflatten(1, (count, -1)).movedim(1, 0).reshape(groups.shape)
        return _Normed(out, images * count, mean.view(count, -1), var.view(count, -1))

    def _average(self, normed: list["_Normed"], images: int) -> None:
        weighed = [
            torch.stack((one.mean, one.var)).mean(dim=1) * (one.images / images) for one in normed
        ]
        self._take(*torch.stack(weighed).sum(dim=0))

    @torch.no_grad()
    def _take(self, mean: Tensor, var: Tensor) -> None:
        """Let the running averages (C,) follow a batch's mean and unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            running.lerp_(new.to(running.dtype), share)


@dataclass(frozen=True)
class _Normed:
    """Groups that were normalised, and their statistics (groups, C)."""

    out: Tensor
    images: int
    mean: Tensor
    var: Tensor  # unbiased, as torch keeps it


class RMSNorm(nn.RMSNorm):
    """x / √(mean x² + ε)·γ over the features of each token, in the precision of γ."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (…, C)."""
        return super().forward(x.to(self.weight.dtype))


class RepBatchNorm(nn.Module):
    """BatchNorm with a learned share of its input, BN(x) + α·x: (B, N, C) → (B, N, C).

    α is one number for all features and starts at 1. Source: SLAB (Guo et al., ICML 2024).
    """

    def __init__(self, batch_norm: TokenBatchNorm) -> None:
        super().__init__()
        self.bn = batch_norm
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, N, C)."""
        return self.bn(x) + self.alpha * x


class ProgressiveRepBatchNorm(nn.Module):
    """λ·LN(x) + (1 - λ)·RepBN(x) with λ falling from 1 to 0: (B, N, C) → (B, N, C).

    λ is linear in the share of the training run that is done and reaches 0 at `share` of it;
    `set_progress` tells it. Source: PRepBN of SLAB (Guo et al., ICML 2024), which let λ fall over
    300,000 of about 375,000 steps.
    """

    lam: Tensor

    def __init__(
        self, layer_norm: nn.LayerNorm, rep_batch_norm: RepBatchNorm, share: float
    ) -> None:
        super().__init__()
        self.ln = layer_norm
        self.rep = rep_batch_norm
        self.share = share
        self.register_buffer("lam", torch.ones(()))
        self.is_merged = False  # λ is 0: the layer norm need not be computed

    def set_progress(self, done: float) -> None:
        """Take λ to where it is when the share `done` in [0, 1] of the run has been trained."""
        lam = max(1.0 - done / self.share, 0.0)
        self.lam.fill_(lam)
        self.is_merged = lam == 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, N, C)."""
        if self.is_merged:
            return self.rep(x)
        return self.lam * self.ln(x) + (1.0 - self.lam) * self.rep(x)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.is_merged = bool(self.lam == 0.0)


class DyT(nn.Module):
    """γ·tanh(α·x) + β, α one number: (B, N, C) → (B, N, C).

    Source: dynamic tanh (Zhu et al., CVPR 2025), α = 0.5 at first.
    """

    def __init__(self, dim: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Squash `x` (B, N, C)."""
        return torch.tanh(self.alpha * x) * self.weight + self.bias


class Derf(DyT):
    """γ·erf(α·x + s) + β, α and s one number each: (B, N, C) → (B, N, C).

    Source: dynamic erf (CVPR 2026), α = 0.5 and s = 0 at first.
    """

    def __init__(self, dim: int, alpha: float = 0.5) -> None:
        super().__init__(dim, alpha)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Squash `x` (B, N, C)."""
        return torch.erf(self.alpha * x + self.shift) * self.weight + self.bias


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    """The BatchNorms of `model` that keep population statistics, in order of registration."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats
    ]


def set_ghost(model: nn.Module, images: int | None) -> None:
    """Let the BatchNorms of `model` take the statistics of so many images; None: of all."""
    for module in model.modules():
        if isinstance(module, TokenBatchNorm):
            module.ghost = images


def set_synced(model: nn.Module, is_synced: bool) -> None:
    """Let the BatchNorms of `model` take statistics over all processes that train it, or not."""
    for module in model.modules():
        if isinstance(module, TokenBatchNorm):
            module.synced = is_synced


@contextmanager
def whole_and_alone(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Within this context each of `norms` takes the statistics of all that it is given itself.

    Neither of groups of it, nor of what other processes are given.
    """
    kept = [(norm, norm.ghost, norm.synced) for norm in norms if isinstance(norm, TokenBatchNorm)]
    for norm, _, _ in kept:
        norm.ghost, norm.synced = None, False
    try:
        yield
    finally:
        for norm, ghost, synced in kept:
            norm.ghost, norm.synced = ghost, synced


def progressive_norms(model: nn.Module) -> list[ProgressiveRepBatchNorm]:
    """The norms of `model` that want to be told which share of its training is done."""
    return [module for module in model.modules() if isinstance(module, ProgressiveRepBatchNorm)]
