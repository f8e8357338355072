"""Training states of open trials: on local disk, and if asked where every node reaches them."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from study import checkpoint_files as files
from study.checkpoint_files import UnusableError
from study.checkpoint_mirror import Mirror
from study.place import Place, PlaceError, T, Wait, never, patiently, within

LIST_TIMEOUT_S = 20
FETCH_TIMEOUT_S = 600
PATIENCE_S = 600.0  # for a place that is known to have a trial's last state

log = logging.getLogger(__name__)

_Candidate = tuple[str, Path | None]  # a file's name, and where it lies on this machine


class Checkpoints:
    """The states of one study's open trials: the last two of each.

    Several workers may write the same folder or place, even of the same trial.
    """

    def __init__(self, folder: Path, place: Place | None = None) -> None:
        """`folder` is this study's on local disk; `place` keeps copies for all nodes."""
        self.folder = folder
        self._place = place
        self._mirror = Mirror(place) if place is not None else None

    def save(self, number: int, state: dict[str, Any], images_seen: int) -> None:
        """Write a state of trial `number`, atomically; it is copied elsewhere later.

        Raises OSError where the folder cannot be written.
        """
        trial = _trial(number)
        path = files.write(self.folder, trial, state, images_seen)
        if path is None:
            return
        names = [kept.name for kept in files.newest_first(path.parent)]
        for name in files.surplus(names, path.name):
            path.with_name(name).unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.put(trial, path)

    def states(
        self, number: int, images_saved: int = 0, is_over: Callable[[], bool] = never
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Images seen and state of what can be read of trial `number`, newest first.

        A trial that was saved at `images_saved` is worth waiting for: where nothing so far on
        lies on this machine, the place is asked for up to PATIENCE_S, or until `is_over`.
        """
        local = self._local(number)
        furthest = max((files.images_seen(name) for name, _ in local), default=0)
        wait = Wait(PATIENCE_S if furthest < images_saved else 0.0, is_over)
        left = self._candidates(number, local, wait)
        while left:
            name, path = left.pop(0)
            try:
                state = files.load(path) if path else self._fetch(number, name, wait)
            except FileNotFoundError:  # deleted meanwhile, by a worker that has gone further
                continue
            except PlaceError as error:
                left = [candidate for candidate in left if candidate[1] is not None]
                if not is_over():
                    _warn_of_place(number, error, left)
            except UnusableError as error:
                if path is not None and error.damaged:  # else it would be one of the two kept
                    path.unlink(missing_ok=True)
                _warn_of_file(number, name, error, left)
            else:
                left = [candidate for candidate in left if candidate[0] != name]
                yield files.images_seen(name), state

    def discard(self, number: int) -> None:
        """Delete the states of a trial that has ended; the copies a little later."""
        trial = _trial(number)
        shutil.rmtree(self.folder / trial, ignore_errors=True)
        with suppress(OSError):
            for rest in self.folder.glob(f"{trial}.*"):  # of killed workers
                if rest.is_dir():
                    shutil.rmtree(rest, ignore_errors=True)
                else:
                    rest.unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.delete(trial)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the copies are up to date; returns whether they are."""
        return self._mirror is None or self._mirror.flush(timeout_s)

    def sweep(self) -> None:
        """Delete all that there is of the study; the copies a little later."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._mirror is not None:
            self._mirror.delete_all()

    def close(self) -> None:
        """Stop copying; waits a second at most."""
        if self._mirror is not None:
            self._mirror.close()

    def _local(self, number: int) -> list[_Candidate]:
        folder = self.folder / _trial(number)
        return [(path.name, path) for path in files.newest_first(folder)]

    def _candidates(self, number: int, local: list[_Candidate], wait: Wait) -> list[_Candidate]:
        """A trial's files, newest first; those on this machine before their copies."""
        if (place := self._place) is None:
            return local
        try:
            names = _ask(number, lambda: place.names(_trial(number)), LIST_TIMEOUT_S, wait)
        except PlaceError as error:
            if not wait.is_over():
                _warn_of_place(number, error, local)
            return local
        copies: list[_Candidate] = [(name, None) for name in files.ours(names)]
        return sorted(
            local + copies,
            key=lambda candidate: (files.images_seen(candidate[0]), candidate[1] is not None),
            reverse=True,
        )

    def _fetch(self, number: int, name: str, wait: Wait) -> dict[str, Any]:
        assert self._place is not None  # it was listed there
        get, trial = self._place.get, _trial(number)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=self.folder, prefix=f"{trial}.", ignore_cleanup_errors=True
        ) as folder:
            path = _ask(number, lambda: get(trial, name, Path(folder)), FETCH_TIMEOUT_S, wait)
            return files.load(path)


def _trial(number: int) -> str:
    return f"trial-{number}"


def _ask(number: int, call: Callable[[], T], timeout_s: float, wait: Wait) -> T:
    """What a place answers to `call` within `timeout_s`, tried again as `wait` says."""

    def note(error: PlaceError) -> None:
        log.warning(
            "trial %d: its checkpoint for all nodes cannot be read at present: %s; tried again "
            "for up to %.0f s",
            number,
            error,
            wait.seconds,
        )

    return patiently(lambda: within(timeout_s, call, wait.is_over), wait, note)


def _warn_of_file(number: int, name: str, error: UnusableError, left: list[_Candidate]) -> None:
    log.warning(
        "trial %d: the checkpoint at %d images is damaged (%s); the trial %s",
        number,
        files.images_seen(name),
        error,
        "falls back to the one before" if left else "starts afresh",
    )


def _warn_of_place(number: int, error: PlaceError, left: list[_Candidate]) -> None:
    log.warning(
        "trial %d: checkpoints for all nodes cannot be read: %s; %s",
        number,
        error,
        "those on this machine are used" if left else "the trial starts afresh",
    )
