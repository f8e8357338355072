"""What waits in the spools of this node, and whom it is for."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from study.settings import Settings
from study.spool import DONE, left_behind
from study.storage import Store
from study.words import counted

ABOUT = "about.txt"  # in a folder of spools: which store and which MLflow they are for


def note_address(folder: Path, store: Store, settings: Settings) -> None:
    """Leave a word in `folder` on whom its spools are for, for people."""
    (folder / ABOUT).write_text(f"MLflow {settings.mlflow_label}, store {store.label}\n")


def address_of(folder: Path) -> str | None:
    """Whom the spools in `folder` are for; None: it does not say."""
    with suppress(OSError):
        return (folder / ABOUT).read_text().strip()
    return None


def waiting(path: Path) -> int:
    """Lines of a spool that have not been replayed; its owner may be writing it."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    return sum(bool(line.strip()) and not line.startswith(DONE) for line in lines)


def left_for_others(settings: Settings, ours: Path) -> Iterator[str]:
    """A line for each folder of spools but `ours` in which records of dead workers wait."""
    for folder in sorted(path for path in settings.spool_dir.glob("*") if path.is_dir()):
        records = 0 if folder == ours else sum(map(waiting, left_behind(folder)))
        if records:
            address = address_of(folder) or "another store or MLflow"
            yield f"{counted(records, 'record')} more in {folder} are for {address}"
