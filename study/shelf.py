"""The data of studies, each read once by a process."""

import logging
from pathlib import Path

from objectives.data import SearchData, load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset
from study.errors import DataDifferError
from study.fitness import check_data
from study.identity import StudyIdentity

log = logging.getLogger(__name__)


class Shelf:
    """What has been read of the data under `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._data: dict[tuple[str, DataOptions, bool, int], SearchData] = {}

    def data(self, name: str, identity: StudyIdentity) -> SearchData:
        """What the study `name` trains on; raises DataDifferError where that is not here."""
        key = (identity.dataset, identity.data_options, identity.is_joined, identity.train_images)
        if key not in self._data:
            log.info("data of '%s': %s", name, identity.dataset)
            source = dataset(identity.dataset, self.data_dir, identity.data_options)
            self._data[key] = load_search_data(source, identity.is_joined).limited(
                identity.train_images
            )
        try:
            check_data(name, identity, self._data[key])
        except DataDifferError:
            del self._data[key]  # other files may be put there
            raise
        return self._data[key]
