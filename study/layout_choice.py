"""How many local workers a CPU is divided among, found by measurement."""

import statistics
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from objectives.layout_probe import Probe
from objectives.layouts import Layout, images_per_s, layouts
from study.errors import WorkerError
from study.execution import execution_of
from study.identity import StudyIdentity
from study.service import Session

WORTH = 1.2  # times what one worker with all threads trains, for more workers to be taken
TURNS = 3
TURN_S = 3.0  # of each layout in each turn
WORKER_BYTES = 2**30  # of one that trains small images, and a little more (docs/performance.md)


def local_workers(session: Session, say: Callable[[str], None]) -> int | None:
    """How many were asked for; None: one per GPU, else one."""
    asked = session.request.workers
    if asked != "auto":
        return asked
    if session.device.type != "cpu" or session.is_done:
        return None
    probe = _probe(
        session.identity, session.settings.data_dir, execution_of(session.study).compiled
    )
    return measured_layout(probe, fitting(torch.get_num_threads()), say).workers


def fitting(cores: int) -> list[Layout]:
    """The layouts whose workers fit into the memory that is free; one worker always does."""
    most = psutil.virtual_memory().available // WORKER_BYTES
    return [layout for layout in layouts(cores) if layout.workers <= max(most, 1)]


def measured_layout(probe: Probe, tried: list[Layout], say: Callable[[str], None]) -> Layout:
    """The layout of the most trials per hour, or one worker where little is to be gained.

    `tried` begins with one worker. Raises WorkerError where that one cannot train.
    """
    if len(tried) == 1:
        say("workers: one core, or memory for no more: one worker")
        return tried[0]
    say(f"workers: trying {', '.join(map(str, tried))} threads, {len(tried) * 20} s or longer")
    speeds: dict[Layout, list[float]] = {layout: [] for layout in tried}
    for _ in range(TURNS):
        for layout in list(speeds):
            try:
                speeds[layout].append(images_per_s(layout, probe, TURN_S))
            except RuntimeError as error:
                if layout == tried[0]:
                    raise WorkerError(
                        f"--workers auto: a trial run failed ({error}); give a number"
                    ) from error
                say(f"workers: {layout} threads did not train ({error})")
                del speeds[layout]
    return choose({layout: statistics.median(found) for layout, found in speeds.items()}, say)


def choose(speeds: dict[Layout, float], say: Callable[[str], None]) -> Layout:
    """The fastest by images/s, if it is `WORTH` its parallel trials; says why."""
    alone = next(iter(speeds))
    best = max(speeds, key=lambda layout: speeds[layout])
    gain = speeds[best] / speeds[alone]
    if best == alone:
        say(f"workers: one with all {alone.threads} threads is the fastest")
    elif gain < WORTH:
        say(
            f"workers: too little is to be gained; {best} threads train {gain:.2f} times as much "
            f"as one worker with all {alone.threads}, and more workers know less of each other"
        )
    else:
        say(f"workers: {best} threads train {gain:.2f} times as much as one worker with all")
        return best
    return alone


def _probe(identity: StudyIdentity, data_dir: Path, compiled: bool) -> Probe:
    first, last = identity.batch_size
    return Probe(
        model=identity.model,
        switches=identity.switches,
        dataset=identity.dataset,
        data_dir=str(data_dir),
        batch_size=min((first + last) // 2, identity.train_images),
        precision=identity.precision,
        image_size=identity.image_size,
        skip_broken=identity.skip_broken,
        train_images=identity.train_images,
        compiled=compiled,
    )
