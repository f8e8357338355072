"""What a recipe does to images before a step sees them, each drawn from seed and step alone.

So the twins of a comparison see the same images, whatever else they draw, and any step is drawn
again from its number after an interruption. The transforms are torchvision's; images are changed
one by one, as `v2` draws once for all that it is given.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.switches import ImageShape
from models.torchvision_import import transforms_v2
from objectives.order import mixed_seed
from objectives.recipes import Recipe

Change = Callable[[Tensor], Tensor]

_BINS = 31  # of RandAugment's magnitudes, 0 to 30


class Augmentation:
    """Draws for one step after another, from the one numbered `step` on."""

    def __init__(self, recipe: Recipe, image: ImageShape, seed: int, step: int) -> None:
        v2 = transforms_v2()
        self.seed = seed
        self.step = step
        self.image = _each(_image_transforms(v2, recipe, image))
        self.pixels = _each([v2.RandomErasing(recipe.erasing, value="random")], recipe.erasing)
        self.mix = _mixing(v2, recipe, image.classes)

    def change(self, images: Tensor) -> Tensor:
        """Stored images (B, C, H, W) uint8 of the next step, changed each by itself.

        On the CPU, wherever they lie: one by one they would be thousands of launches on a GPU.
        """
        with _drawn(mixed_seed(self.seed, 2 * self.step)):
            return self.image(images.cpu()).to(images.device)

    def batch(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The step's batch as the model takes it, erased and mixed.

        Labels (B,) become shares of the classes (B, classes) where images are mixed.
        """
        with _drawn(mixed_seed(self.seed, 2 * self.step + 1)):
            pixels = self.pixels(pixels)
            if self.mix is not None:
                pixels, labels = self.mix(pixels, labels)
        self.step += 1
        return pixels, labels


class NoAugmentation:
    """The same calls, and nothing is changed."""

    def change(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    def batch(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch as it is."""
        return pixels, labels


AS_THEY_ARE = NoAugmentation()


def augmentation(
    recipe: Recipe, image: ImageShape, seed: int, step: int
) -> Augmentation | NoAugmentation:
    """What `recipe` does to images, from the step numbered `step` on."""
    if recipe.is_augmenting or recipe.is_mixing:
        return Augmentation(recipe, image, seed, step)
    return AS_THEY_ARE


def _image_transforms(v2: Any, recipe: Recipe, image: ImageShape) -> list[Any]:
    found = []
    if recipe.crop:
        found.append(v2.RandomCrop(image.size, padding=recipe.crop))
    if recipe.flip:
        found.append(v2.RandomHorizontalFlip(recipe.flip))
    if recipe.augment == "randaugment":
        found.append(v2.RandAugment(recipe.operations, recipe.magnitude, _BINS))
    elif recipe.augment == "autoaugment":
        found.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET))
    return found


def _each(transforms: list[Any], is_on: object = True) -> Change:
    """The transforms one after another, of each image by itself."""
    if not (transforms and is_on):
        return lambda images: images

    def change(images: Tensor) -> Tensor:
        return torch.stack([_through(transforms, image) for image in images])

    return change


def _through(transforms: list[Any], image: Tensor) -> Tensor:
    for transform in transforms:
        image = transform(image)
    return image


def _mixing(v2: Any, recipe: Recipe, classes: int) -> Any | None:
    found = []
    if recipe.mixup:
        found.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        found.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    return v2.RandomChoice(found) if found else None


@contextmanager
def _drawn(seed: int) -> Iterator[None]:
    """Within it the CPU's generator begins at `seed`; afterwards it is where it was."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
