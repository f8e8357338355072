"""What `batch-stats` is asked for, checked before anything is trained."""

from dataclasses import dataclass, replace

from models.errors import InputError
from models.registry import variant
from models.switches import Switches, non_default
from objectives.data import SearchData
from objectives.recipe import TrainConfig, epoch_rungs, recalibration_images
from objectives.recipes import ARTICLE, Recipe, preset
from study.recipe_checks import check_of_use, check_teaching

OF_EPOCHS = 100
"""Epochs of the run that --freeze-last is given for, as in the paper: 20 of 100."""

SGD_BATCH = 1_024
"""Images of a step, as in the paper."""

_OURS = {  # fields of a recipe that the command sets itself, or that would blur what it shows
    "nbs": "give --nbs",
    "freeze_bn": "give --freeze-last",
    "sync_bn": "one process trains here",
    "ema": "averaged weights would hide what their statistics do",
    "accumulate": "micro-batches are normalisation batches of their own; give --nbs",
    "train": "BatchNorm's statistics are fixed in a linear probe",
}


@dataclass(frozen=True)
class BatchStatsRequest:
    """Runs that differ in their normalisation batch, and runs that are watched by two estimates."""

    model: str
    switches: Switches | None = None
    recipe: Recipe = ARTICLE
    dataset: str = "mnist"
    image_size: int | None = None  # pixels; None: as the images are
    train_images: int | None = None  # None: all
    validation_images: int | None = None  # None: all
    nbs: tuple[int, ...] = ()  # images; empty: no sweep
    sgd_batch: int = SGD_BATCH  # images of a step of the sweep
    epochs: int = OF_EPOCHS
    lr: float = 1e-3
    momentum: float = 0.9  # the literature's convention: weight of the old average
    freeze_last: float = 0.0  # epochs of 100; 0: no run is frozen
    curve_batches: tuple[int, ...] = ()  # batch sizes of the watched runs; empty: none
    seeds: int = 1
    seed: int = 1  # the first
    device: str = "auto"

    @property
    def bn_momentum(self) -> float:
        """The same in torch's convention: weight of the newest batch."""
        return round(1.0 - self.momentum, 9)

    @property
    def frozen_epochs(self) -> float:
        """Epochs of these runs in which BatchNorm is frozen: the same share as of 100."""
        return self.freeze_last / OF_EPOCHS * self.epochs

    @property
    def all_seeds(self) -> range:
        """The seeds that are trained with."""
        return range(self.seed, self.seed + self.seeds)

    def check(self) -> None:
        """Raise InputError for what is wrong whatever the data are."""
        self._check_model()
        self._check_batches()
        if not 0.0 <= self.momentum < 1.0:
            raise InputError(
                f"--momentum {self.momentum:g} must lie in [0, 1): it is the weight of the old "
                "average, as 0.9 or 0.99; torch's bn_momentum is 1 less it"
            )
        if not 0.0 <= self.freeze_last < OF_EPOCHS:
            raise InputError(
                f"--freeze-last {self.freeze_last:g} is longer than the run: it is given for "
                f"{OF_EPOCHS} epochs and takes the same share of --epochs; give less than that"
            )
        for name, value in (("epochs", self.epochs), ("seeds", self.seeds)):
            if value < 1:
                raise InputError(f"--{name} {value} must be at least 1")
        if not 0.0 < self.lr < float("inf"):
            raise InputError(f"--lr {self.lr:g} must be a positive number")

    def check_data(self, data: SearchData) -> None:
        """Raise InputError where there are too few images for what is asked."""
        train, validation = len(data.train), len(data.validation)
        for size in self._sizes():
            if size > train:
                raise InputError(f"a batch of {size} exceeds the {train} training images")
        if self.nbs and max(self.nbs) > min(train, validation):
            raise InputError(
                f"--nbs {max(self.nbs)} needs as many validation images to be judged on; there "
                f"are {validation}"
            )
        if self.freeze_last and self.frozen_epochs * train < self.sgd_batch:
            raise InputError(
                f"--freeze-last {self.freeze_last:g} leaves no step frozen in {self.epochs} epochs "
                f"of {train} images; give more, or more --epochs"
            )

    def config(self, data: SearchData, batch_size: int, nbs: int | None, seed: int) -> TrainConfig:
        """The run of one batch size, normalisation batch and seed; raises InputError."""
        chosen = variant(self.model)
        switches = replace(self.switches or chosen.switches(), bn_momentum=self.bn_momentum)
        recipe = replace(self.recipe, nbs=None if nbs == batch_size else nbs)
        return TrainConfig(
            model=chosen.name,
            switches=chosen.resolved(switches, data.shape),
            dataset=self.dataset,
            lr=self.lr,
            batch_size=batch_size,
            rungs=epoch_rungs(len(data.train), self.epochs),
            train_images=len(data.train),
            seed=seed,
            recipe=recipe,
            recalibration_images=recalibration_images(data.shape.size),
        )

    def notes(self) -> list[str]:
        """What is done where something was left to choose, a line each."""
        found = [
            f"BatchNorm's momentum: {self.momentum:g}, the weight of the old average (the "
            f"literature's convention), which is bn_momentum={self.bn_momentum:g}, the weight of "
            "the newest batch (torch's)"
        ]
        if ragged := [size for size in self.nbs if self.sgd_batch % size]:
            found.append(
                f"NBS {', '.join(map(str, ragged))} do not divide the SGD batch of "
                f"{self.sgd_batch}: its last ghost batch has the rest"
            )
        if self.freeze_last:
            found.append(
                f"frozen: the last {self.frozen_epochs:g} of {self.epochs} epochs, as "
                f"{self.freeze_last:g} of {OF_EPOCHS}"
            )
        return found

    def _check_model(self) -> None:
        chosen = variant(self.model)
        if not chosen.has_batch_norm:
            raise InputError(
                f"{chosen.name} has no BatchNorm, whose statistics this is about; take one that "
                "has, as vitbn"
            )
        if self.switches is not None and not self.switches.track_running_stats:
            raise InputError(
                "track_running_stats=false keeps no population statistics; leave it out"
            )
        if "bn_momentum" in (non_default(self.switches) if self.switches else {}):
            raise InputError("leave out --set bn_momentum: give --momentum, which is 1 less it")
        self.recipe.check()
        brought = preset(self.recipe.name).recipe.told
        for name, why in _OURS.items():
            usual = getattr(ARTICLE, name)
            if getattr(self.recipe, name) != usual:
                how = f"give --set {name}={usual}" if name in brought else f"leave out --set {name}"
                raise InputError(f"{how}: {why}")
        check_of_use(self.recipe)
        check_teaching(self.recipe, chosen)

    def _check_batches(self) -> None:
        if not self.nbs and not self.curve_batches:
            raise InputError("--nbs none --curve-batches none leaves nothing to train")
        for size in self._sizes():
            if size < 2:
                raise InputError(f"a batch of {size}: BatchNorm needs two images")
        for size in self.nbs:
            if size < 2:
                raise InputError(f"--nbs {size}: BatchNorm needs two images to normalise")
            if size > self.sgd_batch:
                raise InputError(
                    f"--nbs {size} is larger than --sgd-batch {self.sgd_batch}, of which it is a "
                    "part; give a smaller one"
                )
        if twice := [size for size in self.nbs if self.nbs.count(size) > 1]:
            raise InputError(f"--nbs names {twice[0]} twice")
        if self.freeze_last and not self.nbs:
            raise InputError("--freeze-last is about the sweep; give --nbs, too")

    def _sizes(self) -> tuple[int, ...]:
        return (*((self.sgd_batch,) if self.nbs else ()), *self.curve_batches)
