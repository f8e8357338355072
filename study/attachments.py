"""Files and a note on a study, where Optuna Dashboard shows them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import optuna
import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from study.data_dir import dashboard_files

_PREFIX = "artifacts:"  # of Optuna's study attributes about files


def file_store(folder: Path) -> FileSystemArtifactStore:
    """Optuna's store of files in `folder`, which is made. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(folder)


def attach(study: optuna.Study, note: str, files: Sequence[Path], data_dir: Path) -> None:
    """Set the study's note, in Markdown, and attach files; those of the same names are replaced.

    Raises OSError.
    """
    store = file_store(dashboard_files(data_dir))
    _drop(study, {path.name for path in files}, store)
    for path in files:
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
    optuna_dashboard.save_note(study, note)


def _drop(study: optuna.Study, names: set[str], store: FileSystemArtifactStore) -> None:
    storage = study._storage
    for key, value in storage.get_study_system_attrs(study._study_id).items():
        told = json.loads(value) if key.startswith(_PREFIX) else None
        if told is None or told["filename"] not in names:
            continue
        with suppress(ArtifactNotFound):  # it lies on another node
            store.remove(told["artifact_id"])
        storage.set_study_system_attr(study._study_id, key, json.dumps(None))
