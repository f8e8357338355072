"""What waits in the spools of a node, and whom it is for."""

from pathlib import Path

from study.leftovers import address_of, left_for_others, note_address
from study.settings import Settings
from study.storage import Store
from tests.study.test_spool import leave_behind


def test_what_waits_for_others_is_told_with_their_address(store: Store, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, mlflow_uri="http://me:secret@there:5000")
    ours, theirs, nobodys = (settings.spool_dir / name for name in ("ours", "theirs", "unknown"))
    for folder in (ours, theirs, nobodys):
        leave_behind(folder, 2)
    note_address(theirs, store, settings)
    told = list(left_for_others(settings, ours))
    assert told == [
        f"2 records more in {theirs} are for MLflow http://me:***@there:5000, store {store.label}",
        f"2 records more in {nobodys} are for another store or MLflow",
    ]
    assert address_of(nobodys) is None
