"""Memory of the device that a trial trains on: what did not fit is not tried again."""

import math

import torch

from objectives.hardware import memory_bytes
from objectives.run import Run
from study.job import Job

MEMORY_KEY = "memory_bytes"  # attribute of a trial: the memory that was too small for it


def too_large(job: Job, batch_size: int) -> str | None:
    """Why a batch need not be tried here: one as small did not fit into as much memory.

    Nothing is foretold where other fields are searched, as they may take memory as well.
    """
    if job.identity.others:
        return None
    mine = memory_bytes(job.device)
    for trial in job.storage.picture.did_not_fit:
        attrs = trial.user_attrs
        smallest = trial.params.get("batch_size", math.inf)
        if attrs.get(MEMORY_KEY, 0) >= mine and batch_size >= smallest:
            return (
                f"batch size {batch_size} was not tried: {smallest} did not fit "
                f"into {attrs[MEMORY_KEY] / 2**30:.0f} GiB (trial {trial.number})"
            )
    return None


def free(run: Run | None) -> None:
    """Give back what a run holds on its device."""
    if run is not None:
        run.model.to("meta")
        run.optimizer.state.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
