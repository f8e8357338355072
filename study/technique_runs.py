"""The runs of an experiment on techniques: those that are missing trained, all of them read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from study import data_dir
from study.conduct import carry_out
from study.reproduction_runs import is_done
from study.request import Request
from study.results import read_result
from study.settings import Settings
from study.storage import open_store
from study.technique import Arm, Technique, TechniqueOptions
from study.technique_report import Point

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class TechniqueRuns:
    """An experiment with its data, so that its arms are known."""

    asked: Technique
    arms: tuple[Arm, ...]
    data: SearchData
    settings: Settings

    def train(self, console: "Console") -> int:
        """Have what is missing trained; the exit code, 0 where all have ended."""
        requests = [arm.request for arm in self.arms]
        with open_store(self.settings) as store:
            left = [one for one in requests if not is_done(store, one, self._data(one))]
        return carry_out(left, self.settings, console, console) if left else 0

    def points(self) -> list[Point]:
        """What the runs gave; raises IncompleteError where some have not ended."""
        with open_store(self.settings) as store:
            return [Point(arm, read_result(store, arm.request.study_name)) for arm in self.arms]

    def _data(self, request: Request) -> SearchData:
        return self.data.limited(request.train_images)


def technique_runs(
    asked: Technique, base: Request, options: TechniqueOptions, settings: Settings
) -> TechniqueRuns:
    """Read the data and lay out the arms; raises InputError where one cannot be trained."""
    base.check()
    data_dir.prepare(settings.data_dir)
    source = dataset(base.dataset, settings.data_dir, base.data_options)
    data = load_search_data(source).limited(base.train_images)
    arms = tuple(asked.arms(base, data.shape, len(data.train), options))
    for arm in arms:
        arm.request.check()
    return TechniqueRuns(asked, arms, data, settings)
