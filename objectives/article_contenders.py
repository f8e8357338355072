"""The article's own times as a race: mean seconds of an epoch, its data loading included."""

from collections.abc import Sequence
from functools import partial
from itertools import islice

import torch

from models.errors import InputError
from objectives.article_loop import BLOCKS, TEST_BATCH_SIZE, ArticleViT, evaluation, training
from objectives.contenders import LR, SEED, Entrant, Work
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.stretch import Contender

STEPS = 5  # of a stretch of training, which is one call
ONE_BLOCK = "_oneblock"  # at the end of a name: of the blocks that are built one runs


def article_contenders(
    entrants: Sequence[Entrant],
    work: Work,
    data: SearchData,
    batch_size: int,
    device: torch.device,
    is_reversed: bool = False,
) -> list[Contender]:
    """The article's models called like ours, training or evaluating as the article did.

    Built one after another, or where `is_reversed` the last first. Raises InputError for images
    that its models do not take.
    """
    if data.shape != MNIST_SHAPE:
        raise InputError(
            "the article's loop takes 28×28 pixels in one channel and 10 classes, as mnist and "
            "fashion-mnist have them; leave out the part speed"
        )
    ordered = entrants[::-1] if is_reversed else entrants
    return [_contender(each, work, data, batch_size, device) for each in ordered]


def evaluation_images(data: SearchData) -> int:
    """How many images one evaluation takes: the article's batch, or as many as there are."""
    return min(TEST_BATCH_SIZE, len(data.validation))


def _contender(
    entrant: Entrant, work: Work, data: SearchData, batch_size: int, device: torch.device
) -> Contender:
    torch.manual_seed(SEED)
    blocks_run = 1 if entrant.name.endswith(ONE_BLOCK) else BLOCKS
    model = ArticleViT(entrant.name.removesuffix(ONE_BLOCK), blocks_run).to(device)
    blocks = tuple(model.branches[::2])  # a block is attention and what comes after it
    if work == "eval":
        images = evaluation_images(data)
        call = partial(evaluation, model, data.validation.first(images), device)
        return Contender(entrant.name, call, model, blocks, entrant.profile.macs, images, _nothing)
    losses = training(model, data.train, batch_size, LR, device)

    def stretch() -> None:
        for _ in islice(losses, STEPS):
            pass

    macs = entrant.profile.macs
    return Contender(entrant.name, stretch, model, blocks, macs, batch_size, _nothing, STEPS)


def _nothing() -> int:
    """Bytes: the memory of the article's loop is not looked at."""
    return 0
