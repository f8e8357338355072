"""What the doctor looks at in each study: whether it can be read, and has its data here."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna

from objectives import idx
from objectives.data import dataset, load_search_data
from study.finding import Finding, carried_out
from study.identity import identity_of
from study.settings import Settings
from study.storage import Store
from study.studies import find_study


def check_data(settings: Settings, store: Store) -> Iterator[Finding]:
    """Whether each study can be read, and has the data here that it was begun with."""
    checksums: dict[str, str | None] = {}  # by data set
    for name in sorted(optuna.get_all_study_names(store.storage)):
        yield from carried_out(f"study {name}", partial(_check, settings, store, name, checksums))


def _check(
    settings: Settings, store: Store, name: str, checksums: dict[str, str | None]
) -> Iterator[Finding]:
    identity = identity_of(find_study(store, name))
    if identity is None:
        return
    source, begun_with = identity.dataset, identity.data_checksum
    if source not in checksums:
        checksums[source] = _checksum(source, settings.data_dir)
    here, told = checksums[source], f"{identity.model} on {source}"
    if here is None:
        told += "; the data are not fetched yet"
    elif here == begun_with:
        told += "; the data are here"
    else:
        told += f"; the data here differ: checksum {here}, not {begun_with}"
    advice = "put the same files here; until then this node cannot work on it"
    yield Finding(f"study {name}", here in (None, begun_with), told, advice)


def _checksum(name: str, data_dir: Path) -> str | None:
    """Of a data set's files; None, and no download, where they are not here."""
    source = dataset(name, data_dir)
    kind, _, given = name.partition(":")
    folder = Path(given) if given else data_dir / "datasets" / kind
    if not folder.is_dir():
        return None
    return load_search_data(replace(source, fetch=lambda: idx.check(folder))).checksum
