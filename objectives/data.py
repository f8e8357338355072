"""What a search sees of a data set: train and validation; the test images are for the last word."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.errors import InputError
from models.switches import ImageShape
from objectives.datasets import Dataset, split_order, validation_count
from objectives.errors import DataError
from objectives.hardware import memory_bytes
from objectives.images import Images, Split, channel_statistics

MEMORY_SHARE = 0.5  # of the memory of a machine, or of this process's on a GPU, for the images


@dataclass(frozen=True)
class SearchData:
    """What a search may see: the test images are not in it."""

    shape: ImageShape
    train: Split
    validation: Split  # empty where these images are trained on, too
    checksum: str  # of all images and labels before the split

    def to(self, device: torch.device) -> "SearchData":
        """The same data for use on `device`: loaded where its memory allows, else by batches."""
        size_bytes = self.train.size_bytes + self.validation.size_bytes
        load = size_bytes <= MEMORY_SHARE * memory_bytes(device)
        train, validation = (split.to(device, load) for split in (self.train, self.validation))
        return replace(self, train=train, validation=validation)

    def limited(self, train_images: int | None) -> "SearchData":
        """The same data with a smaller train split; raises InputError if there are not so many."""
        if train_images is None:
            return self
        if not 1 <= train_images <= len(self.train):
            raise InputError(
                f"train images {train_images} must lie between 1 and {len(self.train)}, "
                "the size of the train split"
            )
        return replace(self, train=self.train.first(train_images))


def load_search_data(source: Dataset, joined: bool = False) -> SearchData:
    """Fetch `source` where needed and carve the validation split from its training images.

    `joined`: train on both, validation images first, and validate on none. Mean and standard
    deviation of the channels are those of the train split all the same. Raises DataError where
    the files are damaged or cannot be fetched.
    """
    found = source.read(source.fetch(), True)
    validation = validation_count(len(found.labels))
    if validation < 1:
        raise DataError(f"{source.name}: {len(found.labels)} training images are too few to split")
    images, labels = found.images, found.labels
    if not found.is_shuffled:
        order = split_order(len(labels))
        images, labels = images[order], labels[order]
    statistics: tuple[Tensor | None, Tensor | None] = (None, None)
    if source.standardize:
        statistics = found.statistics or channel_statistics(images[validation:])
    begin, end = (0, 0) if joined else (validation, validation)
    return SearchData(
        _shape(found),
        Split(images[begin:], labels[begin:], *statistics),
        Split(images[:end], labels[:end], *statistics),
        found.checksum,
    )


def load_test(source: Dataset, like: Split) -> Split:
    """The test images, which no search may read, scaled and kept as the split `like`."""
    found = source.read(source.fetch(), False)
    test = replace(like, images=found.images, labels=found.labels)
    return test.to(like.device, like.is_loaded)


def _shape(found: Images) -> ImageShape:
    _, channels, height, width = found.images.shape
    if height != width:
        raise DataError(f"images of {height}×{width} pixels are not square; set --image-size")
    return ImageShape(channels, height, found.classes)
