"""Mean and variance of each feature over rows that come in pieces."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Of all rows (…, C) that were added: how many, their means, and summed squared deviations.

    Pieces are merged by their rows, with what is between their means. A row is a token of an
    image: (B, N, C) has B·N rows, whatever its number of dimensions. Sums are float64, where the
    device has it.

    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".
    """

    rows: int
    mean: Tensor  # (C,)
    deviations: Tensor  # (C,): Σ (x - mean)²

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Of the rows of `x` (…, C)."""
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        rows = x.detach().flatten(0, -2).to(exact)
        mean = rows.mean(dim=0)
        return cls(len(rows), mean, (rows - mean).square_().sum(dim=0))

    def add(self, other: "Moments") -> None:
        """Merge the rows of `other` into these."""
        rows = self.rows + other.rows
        between = other.mean - self.mean
        self.mean = self.mean + between * (other.rows / rows)
        share = self.rows * other.rows / rows
        self.deviations = self.deviations + other.deviations + between.square() * share
        self.rows = rows

    @property
    def biased(self) -> Tensor:
        """Variance (C,) by the number of rows, by which BatchNorm normalises a batch."""
        return self.deviations / self.rows

    @property
    def unbiased(self) -> Tensor:
        """Variance (C,) by the number of rows less one, as torch keeps running variances."""
        return self.deviations / max(self.rows - 1, 1)

    @property
    def second(self) -> Tensor:
        """Mean square (C,)."""
        return self.biased + self.mean.square()
