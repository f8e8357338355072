"""What the doctor looks at on this machine."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from study import data_dir
from study.checkpoint_places import check_place, shown_place
from study.docket import active_studies
from study.environment import device_label, device_of
from study.finding import Finding, carried_out
from study.settings import LOCAL_CHECKPOINTS, Settings
from study.spool import DONE, REJECTED, SUFFIX, left_behind
from study.storage import Store
from study.studies import CHECKPOINTS_KEY, find_study
from study.words import counted

LEAST_FREE_GIB = 1.0


def check_spool(settings: Settings) -> Iterator[Finding]:
    """Whether records wait for MLflow here, or were refused by it."""
    subject, folder = "spool", settings.spool_dir
    left = left_behind(folder)
    waiting = sum(map(_waiting, left))
    under_way = sum(
        _waiting(path)
        for path in folder.glob(f"*{SUFFIX}")
        if path.name != REJECTED and path not in left
    )
    if waiting:
        dead = counted(len(left), "worker")
        message = f"{counted(waiting, 'record')} of {dead} that died here wait for MLflow"
        yield Finding(subject, False, message, "pass them on with: bnvit-study sync")
    elif under_way:
        message = f"{counted(under_way, 'record')} of workers here are on the way to MLflow"
        yield Finding(subject, True, message)
    else:
        yield Finding(subject, True, "empty: MLflow has all that workers here have recorded")
    rejected = folder / REJECTED
    if rejected.exists():
        message = f"MLflow refused {counted(_waiting(rejected), 'record')}, kept in {rejected}"
        yield Finding(subject, False, message, "delete that file once you know what they were")


def check_checkpoints(settings: Settings, store: Store | None) -> Iterator[Finding]:
    """Whether checkpoints can be kept where all nodes are to find them, if they are to."""
    places = {settings.checkpoints}
    if settings.checkpoints is None and store is not None:
        active = active_studies(store).values()
        places = {find_study(store, name).user_attrs.get(CHECKPOINTS_KEY) for name in active}
    for place in sorted(place for place in places if place not in (None, LOCAL_CHECKPOINTS)):
        yield from carried_out("checkpoints", partial(_check_place, place))


def check_device(name: str) -> Iterator[Finding]:
    """Whether there is such a device here."""
    yield Finding("device", True, device_label(device_of(name)))


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Whether the data folder can be written to and has room."""
    folder = settings.data_dir
    data_dir.prepare(folder)
    free_gib = shutil.disk_usage(folder).free / 2**30
    yield Finding(
        "disk",
        free_gib >= LEAST_FREE_GIB,
        f"{free_gib:.1f} GiB free in {folder}",
        "free space there, or set BNVIT_DATA_DIR to another folder",
    )


def _check_place(place: str) -> Iterator[Finding]:
    check_place(place)
    yield Finding("checkpoints", True, f"can be kept at {shown_place(place)}")


def _waiting(path: Path) -> int:
    """Lines of a spool that have not been replayed; its owner may be writing it."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    return sum(bool(line.strip()) and not line.startswith(DONE) for line in lines)
