"""Models looked into while they classify: found, measured, drawn, written, kept with their run."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.errors import InputError
from objectives.activations import Inspection, inspect
from objectives.batch_stats import recalibrated
from objectives.images import as_pixels
from objectives.injection import check_factor
from study.charts import Chart, Picture
from study.charts_png import write_png
from study.inspect_charts import charts_of
from study.inspect_images import Images, images_for
from study.inspect_subjects import Subject, find, names_of, subject
from study.inspect_words import observations
from study.settings import Settings
from study.trained import tracker_at

USUAL_IMAGES = 256
FOLDER = "inspection"  # among the artifacts of a run
JSON_FILE = "inspection.json"


@dataclass(frozen=True)
class Asked:
    """What is to be inspected."""

    target: str
    against: str | None = None
    dataset: str | None = None  # None: what suits the models
    image_size: int | None = None  # pixels; None: as the data set has it
    images: int | None = None  # None: 256, or as many as there are
    factor: float | None = None  # of the injection; None: no injection
    seed: int = 0  # of random weights

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the models are."""
        if self.factor is not None:
            check_factor(self.factor)


@dataclass(frozen=True)
class Inspected:
    """What was found."""

    images: Images
    subjects: tuple[tuple[Subject, Inspection], ...]
    seed: int

    @property
    def observations(self) -> list[str]:
        """What to say of it."""
        return observations([(one.name, found) for one, found in self.subjects])

    @property
    def charts(self) -> list[Chart]:
        """It in pictures."""
        image = as_pixels(self.images.validation.images[0]).mean(dim=0)
        picture = Picture(tuple(map(tuple, image.tolist())))
        return charts_of([(one.name, found) for one, found in self.subjects], picture)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "dataset": self.images.dataset,
            "seed": self.seed,
            "models": [
                {
                    "name": one.name,
                    "source": one.source,
                    "is_trained": one.card is not None,
                    "saw_validation": one.saw_validation,
                    "run_id": None if one.run is None else one.run.run_id,
                    **found.as_dict(),
                }
                for one, found in self.subjects
            ],
            "observations": self.observations,
        }


@contextmanager
def inspected(asked: Asked, settings: Settings) -> Iterator[Inspected]:
    """Find the models and look into them; what `keep` needs stays open within the context.

    Raises InputError for what cannot be found or does not go together.
    """
    asked.check()
    with ExitStack() as stack:
        targets = [asked.target] + ([] if asked.against is None else [asked.against])
        found = [find(target, settings, stack) for target in targets]
        images = images_for(found, asked.dataset, asked.image_size, asked.images, settings)
        if asked.images is None:
            images = images.at_most(USUAL_IMAGES)
        names = names_of(found)
        subjects = [
            subject(one, name, images.shape, asked.seed)
            for one, name in zip(found, names, strict=True)
        ]
        seen = tuple((one, _inspect(one, images, asked.factor)) for one in subjects)
        yield Inspected(images, seen, asked.seed)


def keep(done: Inspected, folder: Path | None) -> list[str]:
    """Write charts and numbers into `folder`, and beside the first model's run, if it has one.

    Returns what to say of it. Raises InputError where the folder cannot be written to, and
    TrackingError where MLflow does not take the files.
    """
    run = done.subjects[0][0].run
    if folder is None and run is None:
        return []
    with TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        paths = _write(done, place)
        said = [] if folder is None else [f"written: {len(paths)} files in {folder}"]
        if run is not None:
            with tracker_at(run) as tracker:
                tracker.keep_files(run.run_id, paths, FOLDER)
            said.append(f"kept:    in MLflow, among the artifacts of run {run.run_id} ({FOLDER})")
    return said


def _inspect(one: Subject, images: Images, factor: float | None) -> Inspection:
    """Of random weights BatchNorm has no averages yet: it gets the population's statistics."""
    population, split = one.split(images.population).all_pixels(), one.split(images.validation)
    if one.card is not None:
        return inspect(one.model, split, population, factor)
    with recalibrated(one.model, population):
        return inspect(one.model, split, None, factor)


def _write(done: Inspected, folder: Path) -> list[Path]:
    text = json.dumps(done.as_dict(), indent=1, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_FILE).write_text(text)
        pictures = {folder / f"{chart.name}.png": chart for chart in done.charts}
        for path, chart in pictures.items():
            write_png(chart, path)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error})") from error
    return [*pictures, folder / JSON_FILE]
