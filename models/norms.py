"""Token normalisations: modules that map (B, N, C) to (B, N, C), built by `Norm` callables."""

from collections.abc import Callable

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Builds the normalisation of C features; passed to the blocks so that variants share them."""


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm over batch and tokens for each feature: (B, N, C) → (B, N, C).

    Tokens are laid out as (B·N, C), the layout in which they are stored, so no transpose is
    needed. `momentum` follows torch: running = (1 - momentum)·running + momentum·batch.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name for it
        """Normalise `input` (B, N, C)."""
        return super().forward(input.reshape(-1, self.num_features)).view(input.shape)


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    """The BatchNorms of `model` that keep population statistics, in order of registration."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats
    ]
