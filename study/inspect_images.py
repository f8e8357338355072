"""Images that suit the models to inspect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.errors import InputError
from models.switches import ImageShape
from objectives.data import SearchData, load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import SHAPES, dataset, shape_of
from objectives.images import Split
from objectives.recipe import recalibration_images
from study import data_dir
from study.errors import TrackingError
from study.inspect_subjects import Found
from study.settings import Settings
from study.trained import tracker_at

USUAL_DATASET = "mnist"


@dataclass(frozen=True)
class Images:
    """The images of an inspection."""

    dataset: str
    shape: ImageShape
    validation: Split  # that are looked at
    population: Split  # of training, for BatchNorm's statistics

    def at_most(self, count: int) -> "Images":
        """The same with no more than `count` validation images."""
        return replace(self, validation=self.validation.first(count))


def images_for(
    found: Sequence[Found],
    named: str | None,
    size: int | None,
    count: int | None,
    settings: Settings,
    population: int | None = None,
) -> Images:
    """The first `count` validation images of the data set `named`, or of the one that suits.

    `population` training images are for BatchNorm's statistics; None: as many as recalibration
    takes. Raises InputError where the models do not take the same images, or others than these.
    """
    wanted = _wanted(found)
    name, options = named, DataOptions(size)
    if name is None:
        name, usual = suitable(found, wanted, settings)
        options = usual if size is None else replace(usual, image_size=size)
    data_dir.prepare(settings.data_dir)
    data = load_search_data(dataset(name, settings.data_dir, options))
    if wanted is not None and wanted != data.shape:
        first = next(one for one in found if one.trained is not None)
        raise InputError(
            f"{first.target} takes images of {_shown(wanted)}, {name} has {_shown(data.shape)}; "
            "give another --dataset or --image-size"
        )
    validation = data.validation
    if count is not None:
        _check_count(count, data)
        validation = validation.first(count)
    estimated_on = data.train.first(population or recalibration_images(data.shape.size))
    return Images(name, data.shape, validation, estimated_on)


def _wanted(found: Sequence[Found]) -> ImageShape | None:
    shapes = {one.target: one.trained[0].image for one in found if one.trained is not None}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{target} takes {_shown(shape)}" for target, shape in shapes.items())
        raise InputError(f"the two models take different images: {told}; compare models of one set")
    return next(iter(shapes.values()), None)


def suitable(
    found: Sequence[Found], wanted: ImageShape | None, settings: Settings
) -> tuple[str, DataOptions]:
    """The data set that a model was trained on, as far as that is known, and how it is read."""
    if wanted is None:
        return USUAL_DATASET, DataOptions()
    for one in found:
        if one.study is not None:
            return one.study.dataset, one.study.data_options
    name = next((name for one in found if (name := _recorded(one)) is not None), None)
    if name is None:
        alike = [(n, s) for n, s in SHAPES.items() if replace(s, size=wanted.size) == wanted]
        if not alike:
            raise InputError(
                f"no published data set has images of {_shown(wanted)}; say which with --dataset"
            )
        name = min(alike, key=lambda pair: pair[1].size != wanted.size)[0]
    is_as_it_is = shape_of(name, settings.data_dir, DataOptions()) == wanted
    return name, DataOptions() if is_as_it_is else DataOptions(wanted.size)


def _recorded(found: Found) -> str | None:
    if found.run is None:
        return None
    try:
        with tracker_at(found.run) as tracker:
            return tracker.dataset(found.run.run_id)
    except TrackingError as error:
        raise InputError(f"run {found.run.run_id} cannot be read ({error})") from error


def _check_count(count: int, data: SearchData) -> None:
    if not 1 <= count <= len(data.validation):
        raise InputError(
            f"--images {count} must lie between 1 and {len(data.validation)}, the size of the "
            "validation split"
        )


def _shown(shape: ImageShape) -> str:
    return f"{shape.channels}×{shape.size}×{shape.size} in {shape.classes} classes"
