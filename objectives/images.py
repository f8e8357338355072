"""Images as they are stored, and what is done to them before a model sees them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

CPU = torch.device("cpu")
_AT_ONCE = 512  # images handled in one piece where memory matters


@dataclass(frozen=True)
class Images:
    """One half of a data set, decoded."""

    images: Tensor  # (N, channels, size, size) uint8
    labels: Tensor  # (N,) int64
    classes: int
    checksum: str
    is_shuffled: bool = False  # the order is that of the split already
    statistics: tuple[Tensor, Tensor] | None = None  # of the train split, where they are known


@dataclass(frozen=True)
class Split:
    """Images as stored, and their labels; batches of them are wanted on `device`."""

    images: Tensor  # (N, channels, size, size) uint8
    labels: Tensor  # (N,) int64
    mean: Tensor | None = None  # (channels, 1, 1), subtracted from pixels in [0, 1]; None: as is
    std: Tensor | None = None
    device: torch.device = CPU
    is_loaded: bool = True  # all images lie on the device; else batches are brought there

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size_bytes(self) -> int:
        """Memory that the images take."""
        return self.images.numel()

    def to(self, device: torch.device, load: bool = True) -> "Split":
        """The same images for use on `device`, where `load` puts them."""
        mean = None if self.mean is None else self.mean.to(device)
        std = None if self.std is None else self.std.to(device)
        if not load:
            return replace(self, mean=mean, std=std, device=device, is_loaded=False)
        return Split(self.images.to(device), self.labels.to(device), mean, std, device)

    def first(self, count: int) -> "Split":
        """The first `count` images; they are in random order already."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def pixels(self, images: Tensor) -> Tensor:
        """Stored images (B, channels, size, size), on the device, as the model takes them."""
        pixels = as_pixels(images)
        if self.mean is None or self.std is None:
            return pixels
        return pixels.sub_(self.mean).div_(self.std)

    def all_pixels(self) -> Tensor:
        """All images as the model takes them, on the device."""
        return self.pixels(self.images.to(self.device))


def as_pixels(images: Tensor) -> Tensor:
    """uint8 images → float32 in [0, 1], as torchvision's ToTensor scales them."""
    return images.to(torch.float32).div_(255)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channels, 1, 1) of pixels in [0, 1], over all of `images`."""
    count = images.numel() // images.shape[1]
    total = squares = torch.zeros(images.shape[1], dtype=torch.float64)
    for piece in images.split(_AT_ONCE):
        values = piece.to(torch.float64).div_(255)
        total = total + values.sum(dim=(0, 2, 3))
        squares = squares + values.square().sum(dim=(0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
    return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)


def resized(images: Tensor, size: int | None) -> Tensor:
    """`images` (N, channels, h, w) at `size` pixels along each side, interpolated; None: as is."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    done = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for piece, place in zip(images.split(_AT_ONCE), done.split(_AT_ONCE), strict=True):
        large = F.interpolate(piece.float(), (size, size), mode="bilinear", antialias=True)
        place.copy_(large.round_().clamp_(0, 255))
    return done
