"""What a normalisation batch size does: a model trained, frozen at the end, judged each way."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from objectives.data import SearchData
from objectives.evaluation import Evaluation, evaluate
from objectives.metrics import Diverged
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.starting import start
from objectives.three_way import Leakage, ThreeWay, leakage, three_way
from objectives.training import train

JUDGED_TRAIN_IMAGES = 10_000  # at most, for the training error


@dataclass(frozen=True)
class Judged:
    """A trained model by each way to normalise; of the validation images where none are named."""

    three: ThreeWay  # the population's statistics are exact (PreciseBN)
    running: Evaluation  # by the running averages of training
    leakage: Leakage
    frozen: Evaluation | None  # BatchNorm kept its statistics at the end; None: untried, diverged

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **{name: dict(vars(value)) for name, value in vars(self.three).items()},
            "val_running": dict(vars(self.running)),
            "val_frozen": None if self.frozen is None else dict(vars(self.frozen)),
            "leakage": dict(vars(self.leakage)),
        }


def judge(
    config: TrainConfig, data: SearchData, device: torch.device, freeze_last: float = 0.0
) -> Judged | None:
    """Train `config` and judge it; None where the run diverged.

    With `freeze_last` a second run takes over where so many epochs are left, and keeps
    BatchNorm's statistics from there: until then both are the same run. Where only the second
    diverges, `frozen` is None.
    """
    frozen_config = _ending_frozen(config, freeze_last)
    run = start(replace(frozen_config, recipe=config.recipe), data, device)
    is_sound = _train_to(run, 1)
    state = copy.deepcopy(run.state_dict())  # while the run goes on
    if not (is_sound and _train_to(run, len(frozen_config.rungs))):
        return None
    found = _judged(run)
    if not freeze_last:
        return found
    frozen = start(frozen_config, data, device)
    frozen.load_state_dict({**state, "config": frozen_config.as_dict()})
    if not _train_to(frozen, len(frozen_config.rungs)):
        return found  # which is sound, whatever becomes of its frozen twin
    return replace(found, frozen=_by_own(frozen))


def _ending_frozen(config: TrainConfig, freeze_last: float) -> TrainConfig:
    """`config` with a rung where freezing begins, and the end as the only other."""
    end = config.rungs[-1]
    if not freeze_last:
        return replace(config, rungs=(end,))
    frozen = replace(config, recipe=replace(config.recipe, freeze_bn=freeze_last))
    return replace(frozen, rungs=(max(math.ceil(frozen.frozen_from), 1), end))


def _train_to(run: Run, rungs: int) -> bool:
    """Train until so many rungs are reached; whether the run did not diverge."""
    events = train(run)
    while len(run.curve) < rungs:
        if isinstance(next(events), Diverged):
            return False
    return True


def _judged(run: Run) -> Judged:
    config, validation = run.config, run.data.validation
    nbs, at_once = config.normalisation_batch, config.evaluation_batch_size
    running = _by_own(run)
    with run.judged() as model, run.autocast():
        seen = run.data.train.first(JUDGED_TRAIN_IMAGES)
        return Judged(
            three_way(model, seen, validation, nbs, at_once),
            running,
            leakage(model, validation, nbs, at_once),
            None,
        )


def _by_own(run: Run) -> Evaluation:
    """Validation by the statistics that the norms have."""
    with run.autocast():
        return evaluate(run.model, run.data.validation, run.config.evaluation_batch_size)
