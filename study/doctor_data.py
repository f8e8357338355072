"""What the doctor looks at in each study: whether it can be read, and has its data here."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from objectives.data import load_search_data
from objectives.datasets import dataset
from study.finding import Finding, carried_out
from study.identity import StudyIdentity, identity_of
from study.settings import Settings
from study.storage import Store
from study.studies import find_study


def check_data(settings: Settings, store: Store) -> Iterator[Finding]:
    """Whether each study can be read, and has the data here that it was begun with."""
    checksums: dict[Any, str | None] = {}  # by data set and how it is read
    for name in sorted(optuna.get_all_study_names(store.storage)):
        yield from carried_out(f"study {name}", partial(_check, settings, store, name, checksums))


def _check(
    settings: Settings, store: Store, name: str, checksums: dict[Any, str | None]
) -> Iterator[Finding]:
    identity = identity_of(find_study(store, name))
    if identity is None:
        return
    begun_with, key = identity.data_checksum, (identity.dataset, identity.data_options)
    if key not in checksums:
        checksums[key] = _checksum(identity, settings.data_dir)
    here, told = checksums[key], f"{identity.model} on {identity.dataset}"
    if here is None:
        told += "; the data are not fetched and decoded yet"
    elif here == begun_with:
        told += "; the data are here"
    else:
        told += f"; the data here differ: checksum {here}, not {begun_with}"
    advice = "put the same files here; until then this node cannot work on it"
    yield Finding(f"study {name}", here in (None, begun_with), told, advice)


def _checksum(identity: StudyIdentity, data_dir: Path) -> str | None:
    """Of a data set's files; None where they are yet to be fetched or decoded.

    Raises DataError where files of somebody's own are missing.
    """
    source = dataset(identity.dataset, data_dir, identity.data_options)
    is_own = ":" in identity.dataset or identity.dataset == "imagenet"
    if is_own:
        source.fetch()  # which only looks
    elif not source.folder.is_dir():
        return None
    if source.files is not None and not source.files.is_decoded():
        return None
    source = replace(source, fetch=lambda: source.folder)
    return load_search_data(source).checksum
