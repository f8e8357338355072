"""How a data set is read and split, for those that do not read it."""

from dataclasses import dataclass
from pathlib import PurePath

from models.errors import InputError

SPLIT_SEED = 0  # which training images validate; fixed so that all studies agree
LARGEST_SIZE = 2_048  # pixels


@dataclass(frozen=True)
class DataOptions:
    """How a data set is read."""

    image_size: int | None = None  # pixels along each side; None: as the images are
    skip_broken: bool = False  # leave image files out that cannot be read

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIZE:
            raise InputError(f"image size {self.image_size} must lie between 1 and {LARGEST_SIZE}")


def short_name(dataset: str) -> str:
    """What a data set is called in titles and names: one of one's own, by its folder."""
    kind, _, folder = dataset.partition(":")
    return PurePath(folder).name if folder and kind in ("idx", "folder") else kind
