"""Images that nobody took, for tests and for measuring speed: quickly made, and learnable."""

import torch

from models.errors import InputError
from objectives.images import Images

DEFAULT = (1_200, 3, 32, 10)  # images, channels, size, classes
MOST = 1 << 30  # pixels
_NOISE = 40.0  # standard deviation, of 255


def make(text: str, train: bool) -> Images:
    """Noise over one pattern for each class; the same for the same `text`, always.

    `text` is IMAGESxCHANNELSxSIZExCLASSES, or empty. The other half has a quarter as many images.
    Raises InputError.
    """
    images, channels, size, classes = _parse(text)
    generator = torch.Generator().manual_seed(classes)
    patterns = torch.rand(classes, channels, size, size, generator=generator) * 255
    generator.manual_seed(1 if train else 2)
    count = images if train else max(images // 4, classes)
    labels = torch.arange(count) % classes
    noise = torch.randn(count, channels, size, size, generator=generator) * _NOISE
    stored = (patterns[labels] + noise).clamp_(0, 255).to(torch.uint8)
    return Images(stored, labels, classes, f"fake-{images}-{channels}-{size}-{classes}")


def _parse(text: str) -> tuple[int, int, int, int]:
    if not text:
        return DEFAULT
    try:
        images, channels, size, classes = (int(part) for part in text.split("x"))
    except ValueError:
        raise InputError(f"fake:{text} must be fake:IMAGESxCHANNELSxSIZExCLASSES") from None
    if min(images, channels, size, classes) < 1 or max(images, classes) * channels * size**2 > MOST:
        raise InputError(
            f"fake:{text} must be four numbers of at least 1, a billion pixels in all at most"
        )
    return images, channels, size, classes
