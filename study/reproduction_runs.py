"""The studies of a reproduction: found by their names, trained where something is missing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna

from models.registry import DEFECTS
from models.switches import ViTSwitches
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.search_space import article_space
from study.article_claims import (
    BATCH_SIZE,
    DROPOUT,
    LRS,
    MODELS,
    SEARCH_EPOCHS,
)
from study.claims import Part
from study.conduct import carry_out
from study.creation import identify
from study.errors import IdentityError
from study.experiment_requests import fit_of_study, sweep_of
from study.plan import Plan
from study.reproduction import Reproduction
from study.request import Request, Workers
from study.settings import Settings
from study.storage import Store, open_store
from study.studies import show_study

if TYPE_CHECKING:
    from rich.console import Console

_NO_VALUES = ((0.0, 0),)  # of a fit, which takes them from its search
_DROPOUT_MODELS = ("vit", "vitbn")
_DROPOUT_LR = LRS[0]


class Runs:
    """The studies of one reproduction."""

    def __init__(
        self,
        asked: Reproduction,
        settings: Settings,
        console: "Console",
        workers: Workers | None = None,
        checkpoints: str | None = None,
    ) -> None:
        self.asked = asked
        self.settings = settings
        self.console = console
        self.base = Request(
            model=MODELS[0],
            switches=asked.switches,
            dataset=asked.dataset,
            epochs=asked.epochs,
            seed=1,
            train_images=asked.train_images,
            device=asked.device,
            storage=asked.storage,
            mlflow=asked.mlflow,
            workers=workers,
            checkpoints=checkpoints,
        )

    def check(self, parts: Sequence[Part]) -> None:
        """Raise InputError where a request is wrong whatever the data."""
        for part in parts:
            for request in self.requests(part):
                request.check()

    def requests(self, part: Part) -> list[Request]:
        """What a part trains first; the fits of experiment 2 depend on what its searches find."""
        plan = Plan(
            "sweep", tuple((lr, BATCH_SIZE) for lr in self.asked.lrs), self.asked.seeds, "train"
        )
        if part == "experiment1":
            named = replace(self.base, study=f"{self.asked.name}-sweep")
            return sweep_of(named, [*MODELS, *DEFECTS], plan)
        if part == "dropout":
            named = replace(self.base, study=f"{self.asked.name}-dropout", switches=self._dropout)
            plan = replace(plan, configurations=((_DROPOUT_LR, BATCH_SIZE),))
            return sweep_of(named, _DROPOUT_MODELS, plan)
        return self.searches() if part == "experiment2" else []

    def searches(self) -> list[Request]:
        """The article's: every trial to its end, over spaces that are unequal."""
        return [
            replace(
                self.base,
                model=model,
                space=article_space(model),
                trials=self.asked.trials,
                epochs=min(SEARCH_EPOCHS, self.asked.epochs),
                pruner="none",
                seed=0,
                study=f"{self.asked.name}-search-{model}",
            )
            for model in MODELS
        ]

    def fits(self, store: Store) -> list[Request]:
        """The best configuration of each search; raises InputError where one has none."""
        plan = Plan("fit", _NO_VALUES, self.asked.seeds, "train")
        return [
            fit_of_study(
                show_study(store, request.study_name),
                replace(self.base, study=self.fit_name(request.model)),
                plan,
            )
            for request in self.searches()
        ]

    def fit_name(self, model: str) -> str:
        """The study of a model's tuned configuration."""
        return f"{self.asked.name}-fit-{model}"

    def train(self, part: Part) -> int:
        """Have what is missing of a part trained; the exit code of the first that was stopped."""
        if code := self._trained(self.requests(part)):
            return code
        if part != "experiment2":
            return 0
        with open_store(self.settings) as store:
            fits = self.fits(store)
        return self._trained(fits)

    def _trained(self, requests: Sequence[Request]) -> int:
        data = self._data(requests[0])
        with open_store(self.settings) as store:
            left = [request for request in requests if not is_done(store, request, data)]
        if not left:
            return 0
        return carry_out(left, self.settings, self.console, self.console)

    def _data(self, request: Request) -> SearchData:
        source = dataset(request.dataset, self.settings.data_dir, request.data_options)
        return load_search_data(source).limited(request.train_images)

    @property
    def _dropout(self) -> ViTSwitches:
        given = self.base.switches
        switches = given if isinstance(given, ViTSwitches) else ViTSwitches()
        return replace(switches, dropout=DROPOUT)


def is_done(store: Store, request: Request, data: SearchData) -> bool:
    """Whether all runs that are asked for have ended.

    Raises IdentityError where the study of that name is another.
    """
    if request.study_name not in optuna.get_all_study_names(store.storage):
        return False
    seen = show_study(store, request.study_name)
    if lines := seen.identity.differences(identify(request, data)):
        raise IdentityError(
            f"the study '{seen.study}' of an earlier command differs: {'; '.join(lines)}. Ask for "
            "the same, or choose another name with --study"
        )
    return len(seen.ended) == len(seen.counted) >= request.trials
