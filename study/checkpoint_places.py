"""Where checkpoints are kept for all nodes: behind an fsspec URL, or as MLflow artifacts."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from models.errors import InputError, first_line
from study.place import Place, PlaceError, errors_told, shown_place, within

__all__ = ["ArtifactPlace", "FsspecPlace", "Place", "PlaceError", "check_place", "shown_place"]

PROBE_TIMEOUT_S = 10
ARTIFACTS = PurePosixPath("checkpoints")  # below the artifacts of a study's parent run
# They show a whole object or none, have no folders, and a rename would be a copy.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "tos"}


class FsspecPlace:
    """A folder per study, `<url>/<uuid>`. Connects anew for each call.

    Calls are minutes apart and come from several threads: a server would have dropped a kept
    connection, a kept listing be out of date, and some drivers serve one thread only.
    """

    def __init__(self, url: str, uuid: str) -> None:
        assert uuid, "the place itself would be the study's folder, to be deleted"
        self.url = url
        self.uuid = uuid

    def names(self, trial: str) -> list[str]:
        """The files of a trial."""
        with self._opened(trial) as (files, folder):
            try:
                return [path.rpartition("/")[2] for path in files.ls(folder, detail=False)]
            except FileNotFoundError:
                return []

    def put(self, trial: str, path: Path) -> None:
        """Copy a file there, by way of another name where a half file could be seen."""
        with self._opened(trial) as (files, folder):
            final, part = f"{folder}/{path.name}", f"{folder}/{path.name}.part"
            if _is_object_store(files):
                files.put_file(str(path), final)
                return
            files.makedirs(folder, exist_ok=True)
            try:
                files.put_file(str(path), part)
                files.mv(part, final)
            except Exception:
                with suppress(Exception):  # it would make a full disk worse
                    files.rm_file(part)
                raise

    def get(self, trial: str, name: str, to: Path) -> Path:
        """Copy a file into the folder `to`."""
        with self._opened(trial) as (files, folder):
            files.get_file(f"{folder}/{name}", str(to / name))
        return to / name

    def delete(self, trial: str, name: str | None) -> None:
        """Delete a file or a whole trial."""
        with self._opened(trial) as (files, folder):
            _remove(files, folder if name is None else f"{folder}/{name}", recursive=name is None)

    def delete_all(self) -> None:
        """Delete the study's folder."""
        with self._opened() as (files, folder):
            _remove(files, folder, recursive=True)

    @contextmanager
    def _opened(self, trial: str | None = None) -> Iterator[tuple[Any, str]]:
        """A file system, and the folder of a trial, or of the study, in it."""
        with errors_told(self.url):
            files, root = url_to_fs(self.url, skip_instance_cache=True)
            folder = f"{root.rstrip('/')}/{self.uuid}"
            yield files, folder if trial is None else f"{folder}/{trial}"


class ArtifactPlace:
    """The artifacts of a study's parent run on an MLflow server: `checkpoints/trial-3/…`."""

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        self.tracking_uri = tracking_uri
        self.run_id = run_id
        self._artifacts: Any = None

    def names(self, trial: str) -> list[str]:
        """The files of a trial."""
        with self._opened() as artifacts:
            found = artifacts.list_artifacts(str(ARTIFACTS / trial))
            return [PurePosixPath(file.path).name for file in found]

    def put(self, trial: str, path: Path) -> None:
        """Copy a file there; the server shows it when it has all of it."""
        with self._opened() as artifacts:
            artifacts.log_artifact(str(path), str(ARTIFACTS / trial))

    def get(self, trial: str, name: str, to: Path) -> Path:
        """Copy a file to where it lies below the folder `to`."""
        with self._opened() as artifacts:
            return Path(artifacts.download_artifacts(str(ARTIFACTS / trial / name), str(to)))

    def delete(self, trial: str, name: str | None) -> None:
        """Delete a file or a whole trial."""
        self._remove(ARTIFACTS / trial / (name or ""))

    def delete_all(self) -> None:
        """Delete all trials of the study."""
        self._remove(ARTIFACTS)

    def _remove(self, path: PurePosixPath) -> None:
        with self._opened() as artifacts:
            found = artifacts.list_artifacts(None if path == ARTIFACTS else str(path.parent))
            if str(path) in {file.path for file in found}:  # some stores refuse if it is not
                artifacts.delete_artifacts(str(path))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with errors_told(self.tracking_uri):
            if self._artifacts is None:
                self._artifacts = _artifacts(self.tracking_uri, self.run_id)
            yield self._artifacts


def check_place(url: str) -> None:
    """Raise InputError within 10 s if checkpoints cannot be kept at `url`, an fsspec URL."""
    told = f"checkpoints cannot be kept at '{shown_place(url)}'"
    scheme, slashes, _ = url.rpartition("::")[2].partition("://")
    if not url.strip() or (not slashes and ":" in url.partition("/")[0]):  # as in s3:/BUCKET
        raise InputError(f"{told}: that is no URL; {_EXAMPLES}")
    if slashes and scheme not in fsspec.available_protocols():
        raise InputError(f"{told}: unknown scheme; {_EXAMPLES}")
    try:
        if slashes:
            fsspec.get_filesystem_class(scheme)
        within(PROBE_TIMEOUT_S, lambda: _probe(url))
    except ImportError as error:
        raise InputError(f"{told}: {first_line(str(error))} ({error.__cause__})") from None
    except PlaceError as error:
        raise InputError(f"{told}: {error.reason}") from None


_EXAMPLES = "write for example s3://BUCKET/FOLDER, sftp://USER@HOST/FOLDER or file:///FOLDER"


def _artifacts(tracking_uri: str, run_id: str) -> Any:
    import study.mlflow_tracker  # noqa: F401 - sets what MLflow reads while it is imported

    # isort: split
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run = MlflowClient(tracking_uri=tracking_uri).get_run(run_id)
    return get_artifact_repository(run.info.artifact_uri, tracking_uri)


def _is_object_store(files: Any) -> bool:
    names = files.protocol
    return not OBJECT_STORES.isdisjoint([names] if isinstance(names, str) else names)


def _remove(files: Any, path: str, recursive: bool) -> None:
    for _ in range(3):  # others may delete the same folder meanwhile
        try:
            files.rm(path, recursive=recursive)
            return
        except Exception as error:  # each driver has its own for what is missing
            try:
                files.info(path)
            except FileNotFoundError:
                return
            if not isinstance(error, FileNotFoundError):
                raise


def _probe(url: str) -> None:
    place = FsspecPlace(url, f"probe-{uuid4().hex}")
    try:
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            file.write(b"bnvit-study")
            file.flush()
            place.put("trial-0", Path(file.name))
            if Path(file.name).name not in place.names("trial-0"):
                raise PlaceError("what is written there is not listed")
    finally:
        place.delete_all()
