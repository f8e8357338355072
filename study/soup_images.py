"""The images that a soup is judged by, and those that its statistics are estimated on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from models.errors import InputError
from objectives.data import SearchData, load_search_data, load_test
from objectives.data_options import DataOptions
from objectives.datasets import Dataset, dataset
from objectives.images import Split
from objectives.recipe import recalibration_images
from study import data_dir
from study.fitness import check_data
from study.inspect_images import suitable
from study.inspect_subjects import Found
from study.settings import Settings


@dataclass(frozen=True)
class SoupImages:
    """Images as the members' training saw them."""

    dataset: str
    population: Split  # of training, for statistics
    validation: Split
    source: Dataset

    def test(self) -> Split:
        """The test images, read anew each time, where the validation images are."""
        return load_test(self.source, self.validation)


def soup_images(
    found: Sequence[Found],
    named: str | None,
    size: int | None,
    settings: Settings,
    device: torch.device,
) -> SoupImages:
    """For use on `device`, of the data set `named`, or of the one that members were trained on.

    Raises InputError where the members do not take such images, or were trained on the validation
    images as well, as far as that is known.
    """
    for one in found:
        if one.study is not None and one.study.is_joined:
            raise InputError(
                f"{one.target} was trained on the validation images too, and a soup is judged by "
                "them; leave it out"
            )
    assert found[0].trained is not None
    told = found[0].trained[0]
    name, options = named, DataOptions(size)
    if name is None:
        name, usual = suitable(found, told.image, settings)
        options = usual if size is None else replace(usual, image_size=size)
    data_dir.prepare(settings.data_dir)
    source = dataset(name, settings.data_dir, options)
    data = load_search_data(source)
    if data.shape != told.image:
        raise InputError(
            f"the members take images of {told.image.size} pixels, {told.image.channels} channels "
            f"and {told.image.classes} classes, {name} has {data.shape.size}, "
            f"{data.shape.channels} and {data.shape.classes}; give another --dataset or "
            "--image-size"
        )
    data = _of_studies(data, found, named)
    train, validation = (told.split(s.images, s.labels) for s in (data.train, data.validation))
    population = train.first(recalibration_images(told.image.size))
    there = replace(data, train=population, validation=validation).to(device)
    return SoupImages(name, there.train, there.validation, source)


def _of_studies(data: SearchData, found: Sequence[Found], named: str | None) -> SearchData:
    """The images that studies have trained on; raises DataDifferError where they are others."""
    if named is not None:
        return data
    for one in found:
        if one.study is not None:
            check_data(one.target, one.study, data)
    known = [one.study.train_images for one in found if one.study is not None]
    return data.limited(min(known, default=None))
