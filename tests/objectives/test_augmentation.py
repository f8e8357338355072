"""What a recipe does to images: drawn from seed and step alone, each image by itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.switches import ImageShape
from objectives.augmentation import AS_THEY_ARE, augmentation
from objectives.data import SearchData
from objectives.feed import feed, in_order
from objectives.order import batches
from objectives.recipes import Recipe, preset
from tests.conftest import CPU
from tests.objectives.tiny import new_run

SHAPE = ImageShape(1, 28, 10)
COLOURED = ImageShape(3, 32, 10)


def images_of(data: SearchData) -> Tensor:
    return data.train.images[:24]


def test_the_article_changes_nothing() -> None:
    assert augmentation(Recipe(), SHAPE, 0, 0) is AS_THEY_ARE


def test_a_flip_is_a_mirror(subset: SearchData) -> None:
    images = images_of(subset)
    flipped = augmentation(Recipe(flip=1.0), SHAPE, 0, 0).change(images)
    torch.testing.assert_close(flipped, images.flip(-1), rtol=0, atol=0)
    half = augmentation(Recipe(flip=0.5), SHAPE, 0, 0).change(images)
    changed = (half != images).flatten(1).any(dim=1)
    assert 0 < changed.sum() < len(images), "each image is drawn by itself"


@pytest.mark.parametrize("augment", ["randaugment", "autoaugment"])
@pytest.mark.parametrize("shape", [SHAPE, COLOURED])
def test_policies_change_images_and_keep_their_kind(augment: str, shape: ImageShape) -> None:
    recipe = replace(Recipe(), augment=augment, magnitude=20)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    size = (24, shape.channels, shape.size, shape.size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    changed = augmentation(recipe, shape, 0, 0).change(images)
    assert (changed.dtype, changed.shape) == (images.dtype, images.shape)
    assert (changed != images).flatten(1).any(dim=1).sum() > 12


def test_a_stronger_magnitude_changes_more(subset: SearchData) -> None:
    images = images_of(subset).repeat(4, 1, 1, 1)
    moved = [
        (augmentation(replace(preset("augreg-light2").recipe, magnitude=m, flip=0.0), SHAPE, 0, 0)
        .change(images).float() - images.float()).abs().mean()
        for m in (0, 10, 30)
    ]  # fmt: skip
    assert moved[0] < moved[1] < moved[2]


def test_a_step_is_drawn_from_its_number_and_leaves_the_generator_alone(
    subset: SearchData,
) -> None:
    recipe, images = preset("deit").recipe, images_of(subset)
    labels = subset.train.labels[:24]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    drawn = []
    for begin in (0, 2):
        source = augmentation(recipe, SHAPE, 3, begin)
        for _ in range(3):
            pixels = source.change(images).float()
            drawn.append(source.batch(pixels, labels))
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    torch.testing.assert_close(drawn[2], drawn[3], rtol=0, atol=0)  # step 2 of both
    assert not torch.equal(drawn[0][0], drawn[1][0])
    other = augmentation(recipe, SHAPE, 4, 0)
    assert not torch.equal(other.batch(other.change(images).float(), labels)[0], drawn[0][0])


def test_mixup_mixes_images_and_labels_by_the_same_share(subset: SearchData) -> None:
    pixels, labels = subset.train.first(16).all_pixels(), subset.train.labels[:16]
    mixed, shares = augmentation(Recipe(mixup=0.8), SHAPE, 0, 0).batch(pixels, labels)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(16))
    row = next(i for i in range(1, 16) if labels[i] != labels[i - 1])
    share = shares[row, labels[row]]
    expected = share * pixels[row] + (1 - share) * pixels[row - 1]
    torch.testing.assert_close(mixed[row], expected)


def test_cutmix_takes_a_rectangle_of_the_share_that_its_label_says() -> None:
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 28, 28).clone()
    labels = torch.arange(4)
    mixed, shares = augmentation(Recipe(cutmix=1.0), SHAPE, 5, 0).batch(pixels, labels)
    own = (mixed[1] == 1.0).float().mean()
    assert 0 < own < 1
    torch.testing.assert_close(shares[1, 1], own)


def test_erasing_hits_the_share_of_images_that_it_should() -> None:
    pixels = torch.zeros(400, 1, 8, 8)
    labels = torch.zeros(400, dtype=torch.int64)
    erased, _ = augmentation(Recipe(erasing=0.25), SHAPE, 0, 0).batch(pixels, labels)
    assert 60 < (erased != 0).flatten(1).any(dim=1).sum() < 140


def test_the_feed_augments_before_pixels_are_scaled(subset: SearchData) -> None:
    flip = augmentation(Recipe(flip=1.0), SHAPE, 0, 0)
    (pixels, _), (plain, _) = (
        next(feed(subset.train, in_order(8, 8), how)) for how in (flip, AS_THEY_ARE)
    )
    torch.testing.assert_close(pixels, plain.flip(-1))


def test_twins_see_the_same_images(subset: SearchData) -> None:
    seen = []
    for model in ("vit", "vitbn"):
        run = new_run(subset, model=model, recipe=preset("deit").recipe)
        config = run.config
        order = batches(config.train_images, 20, config.seed, 0, CPU, config.recipe.repeats)
        drawing = augmentation(config.recipe, run.data.shape, config.seed, 0)
        seen.append(next(feed(run.data.train, order, drawing)))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def test_repeats_of_an_image_share_a_batch_and_stand_apart() -> None:
    order = batches(100, 12, 0, 0, CPU, repeats=3)
    for _ in range(8):
        batch = next(order)
        assert len(batch.unique()) == 4
        assert (batch.roll(1) != batch).all(), "mixing must not mix an image with itself"
    whole = torch.cat([batch for batch, _ in zip(batches(99, 11, 0, 0, CPU, 3), range(9))])  # noqa: B905
    assert len(whole) == 99
    assert len(whole.unique()) == 33, "an epoch has as many images, a third of them different"
