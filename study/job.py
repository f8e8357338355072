"""What a worker needs for one study, and what it says of each trial before training."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from models.profile import profile
from objectives import training
from objectives.data import SearchData
from objectives.recipe import TrainConfig
from study.environment import device_label, revision, versions
from study.identity import UUID_KEY, StudyIdentity
from study.storage import Store
from study.tracking import NullTracker, StudyRuns

_WEIGHTS_LOCK = 7_231_200_000  # advisory lock; plus the study's id in Optuna


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs for one study."""

    store: Store
    study: optuna.Study
    identity: StudyIdentity
    data: SearchData
    device: torch.device
    tracker: NullTracker
    runs: StudyRuns | None
    checkpoint_dir: Path

    @property
    def uuid(self) -> str:
        """The study's identity across stores."""
        return str(self.study.user_attrs[UUID_KEY])

    def weights_locked(self) -> AbstractContextManager[None]:
        """Held by the one worker that changes which trial's weights are kept."""
        return self.store.locked(_WEIGHTS_LOCK + self.study._study_id)

    @property
    def chance(self) -> float:
        """Accuracy of guessing: what a diverged configuration is worth."""
        return 1.0 / self.data.shape.classes


def trial_params(job: Job, config: TrainConfig, run: training.Run) -> dict[str, Any]:
    """What MLflow is told of the trial, counted on its own model."""
    counted = profile(run.model, run.data.shape)
    return {
        **config.as_dict(),
        "epochs": job.identity.epochs,
        "device": device_label(job.device),
        "threads": torch.get_num_threads(),
        "parameters": counted.parameters,
        "multiply_adds": counted.macs,
        "blocks_executed": counted.blocks_executed,
        "revision": revision(),
        "versions": versions(),
    }
