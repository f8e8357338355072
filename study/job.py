"""What a worker needs for one study, and what it says of each trial before training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from objectives.data import SearchData, load_test
from objectives.datasets import dataset
from objectives.execution import FAST, Execution
from objectives.hardware import device_label
from objectives.images import Split
from objectives.recipe import TrainConfig
from objectives.run import Run
from study.checkpoints import Checkpoints
from study.environment import revision, versions
from study.identity import UUID_KEY, StudyIdentity
from study.storage import Store
from study.tracking import StudyRuns, TrialLabel
from study.worker_storage import WorkerStorage


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs for one study."""

    store: Store
    storage: WorkerStorage  # of `study`, for the trial that the worker holds
    study: optuna.Study
    identity: StudyIdentity
    data: SearchData
    device: torch.device
    runs: StudyRuns | None  # None: tracking is off
    checkpoints: Checkpoints
    data_dir: Path  # where data sets are kept
    execution: Execution = FAST

    @property
    def uuid(self) -> str:
        """The study's identity across stores."""
        return str(self.study.user_attrs[UUID_KEY])

    def test_split(self, run: Run) -> Split:
        """The test images as `run` takes them; read anew each time, at the end of a trial."""
        source = dataset(self.identity.dataset, self.data_dir, self.identity.data_options)
        return load_test(source, run.data.train)

    @property
    def chance(self) -> float:
        """Accuracy of guessing: what a diverged configuration is worth."""
        return 1.0 / self.data.shape.classes

    @property
    def majority(self) -> float | None:
        """Accuracy of always naming the validation split's commonest class; None: no such split."""
        labels = self.data.validation.labels
        return int(labels.bincount().max()) / len(labels) if len(labels) else None

    def label(self, number: int) -> TrialLabel:
        """What identifies a trial's run."""
        return TrialLabel(self.study.study_name, self.uuid, number)


def trial_params(job: Job, config: TrainConfig, run: Run) -> dict[str, Any]:
    """What MLflow is told of the trial."""
    return {
        **config.as_dict(),
        "recipe": config.recipe.name,
        "recipe_fields": config.recipe.told,
        "full_lr": config.full_lr,
        "normalisation_batch": run.normalisation_batch,
        "epochs": job.identity.epochs,
        **computed(job, run),
        "revision": revision(),
        "versions": versions(),
    }


def computed(job: Job, run: Run) -> dict[str, Any]:
    """On what a trial is computed and how, and what it executes, counted on its own model.

    And what its accuracy is to be held against, as the data set is not at hand where it is read.
    """
    return {
        "device": device_label(job.device),
        "processes": run.processes,
        "threads": torch.get_num_threads(),
        "execution": str(run.execution),
        "trained_parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "checkpoint_bytes": sum(value.nbytes for value in run.model.state_dict().values()),
        "parameters": run.counted.parameters,
        "multiply_adds": run.counted.macs,
        "blocks_executed": run.counted.blocks_executed,
        "classes": job.data.shape.classes,
        "majority_accuracy": job.majority,
    }
