"""What the doctor looks at on this machine."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from objectives.hardware import device_label
from study import data_dir
from study.checkpoint_places import shown_place
from study.docket import active_studies, check_checkpoints
from study.environment import device_of
from study.finding import Finding, carried_out
from study.leftovers import address_of, waiting
from study.replay import spool_folder
from study.settings import LOCAL_CHECKPOINTS, Settings
from study.spool import REJECTED, SUFFIX, left_behind
from study.storage import Store, tracking_uri
from study.studies import CHECKPOINTS_KEY, find_study
from study.words import counted

LEAST_FREE_GIB = 1.0


def check_spool(settings: Settings, store: Store | None) -> Iterator[Finding]:
    """Whether records wait for MLflow here, or were refused by it."""
    ours = None
    if store is not None and not settings.is_tracking_off:
        settings.check()
        uri = tracking_uri(settings.mlflow_uri, store)
        ours = spool_folder(settings.spool_dir, store, uri)
    findings: list[Finding] = []
    for folder in sorted(path for path in settings.spool_dir.glob("*") if path.is_dir()):
        findings += _left(folder, is_ours=folder == ours)
    yield from findings or [Finding("spool", True, "nothing that workers here recorded is left")]


def check_places(settings: Settings, store: Store | None) -> Iterator[Finding]:
    """Whether checkpoints can be kept where all nodes are to find them, if they are to."""
    places = {settings.checkpoints}
    if settings.checkpoints is None and store is not None:
        active = active_studies(store).values()
        places = {find_study(store, name).user_attrs.get(CHECKPOINTS_KEY) for name in active}
    for place in sorted(place for place in places if place not in (None, LOCAL_CHECKPOINTS)):
        there = settings.model_copy(update={"checkpoints": place})
        yield from carried_out("checkpoints", partial(_check_place, there, shown_place(place)))


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


def _check_place(settings: Settings, shown: str) -> Iterator[Finding]:
    check_checkpoints(settings)
    yield Finding("checkpoints", True, f"can be kept at {shown}")


def _left(folder: Path, is_ours: bool) -> Iterator[Finding]:
    """What waits in the spools for one store and one MLflow."""
    dead = left_behind(folder)
    alive = [path for path in folder.glob(f"*{SUFFIX}") if path.name != REJECTED]
    left = sum(map(waiting, dead))
    under_way = sum(waiting(path) for path in alive if path not in dead)
    if left:
        told = f"{counted(left, 'record')} of {counted(len(dead), 'worker')} that died here"
        whom = address_of(folder) or "the store and the MLflow that they are for"
        where = "" if is_ours else f", with {whom}"
        advice = f"pass them on with: bnvit-study sync{where}"
        yield Finding("spool", False, f"{told} wait in {folder}", advice)
    if under_way:
        told = f"{counted(under_way, 'record')} of workers here are on the way to MLflow"
        yield Finding("spool", True, told)
    rejected = folder / REJECTED
    if rejected.exists():
        told = f"MLflow refused {counted(waiting(rejected), 'record')}, kept in {rejected}"
        yield Finding("spool", False, told, "delete that file once you know what they were")
