"""What each line of a spool does to MLflow, whoever replays it and however often."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState
from sqlalchemy import column, select, table

from study.identity import UUID_KEY
from study.keeping import keeps_all
from study.schema import attribute_told, leases, trials
from study.spool_line import Line
from study.storage import Store

# Advisory locks. Where both are held, the trial's comes first.
REPLAY_LOCK = 7_231_300_000_000  # plus a trial's id: its one replayer. As it is: of parent runs
WEIGHTS_LOCK = 7_231_200_000  # plus a study's id: who changes which trial's weights are kept

# Optuna's, as far as replays need it.
_study_attributes = table(
    "study_user_attributes", column("study_id"), column("key"), column("value_json")
)

log = logging.getLogger(__name__)


class NotYetError(Exception):
    """Optuna has not been told of the trial's end, so nobody knows whether it is the best."""


@dataclass(frozen=True)
class _Standing:
    study_id: int
    attempt: int
    state: TrialState


class Applier:
    """Applies lines in order. MLflow is imported and connected when the first one comes.

    `is_best` is asked, under a lock, whether a line's trial is the best of its study. `waits`:
    whether the trial's worker may yet live, so that it is worth waiting for its end.
    """

    def __init__(
        self, store: Store, uri: str, is_best: Callable[[Line], bool], waits: bool
    ) -> None:
        from study.mlflow_tracker import MlflowTracker  # takes two seconds

        self._store = store
        self._tracker = MlflowTracker(uri)
        self._is_best = is_best
        self._waits = waits
        self._placed: set[str] = set()  # studies that MLflow has where their lines say
        self._run_ids: dict[str, str] = {}  # of the trial that was last asked for

    def disconnect(self) -> None:
        """Close the connections to MLflow."""
        self._tracker.disconnect()

    def apply(self, line: Line, folder: Path) -> bool:
        """Tell MLflow what the line says, or drop it (False) if it is out of date.

        `folder` is its spool's.
        Raises NotYetError, an error of the store, TrackingOutageError: try again later. Any
        other error: it will never do.
        """
        if line.op == "close_study":
            self._check_place(line)
            with self._store.locked(REPLAY_LOCK):
                self._tracker.close_study(line.runs, bool(line.data["finished"]), line.at_ms)
            return True
        assert line.trial_id is not None
        with self._store.locked(REPLAY_LOCK + line.trial_id):
            standing = self._standing(line)
            if standing is None:
                log.debug("dropped: %s of trial %s, which is no more", line.op, line.number)
            elif standing.attempt != line.attempt:
                log.debug("dropped: %s of an older attempt at trial %s", line.op, line.number)
            else:
                self._apply(line, standing, folder)
                return True
        _discard_weights(line, folder)
        return False

    def _apply(self, line: Line, standing: _Standing, folder: Path) -> None:
        trials = self._tracker.trials
        self._check_place(line)
        match line.op:
            case "open":
                assert line.attempt is not None
                run_id = trials.open(
                    line.runs, line.label, line.attempt, line.data["params"], line.at_ms
                )
                self._note_run(line, run_id)
            case "rung":
                values = line.data["values"]
                trials.log_rung(self._run_id(line), line.data["rung"], values, line.at_ms)
            case "put_back":
                trials.put_back(self._run_id(line))
            case "weights":
                self._apply_weights(line, standing, folder)
            case "close":
                trials.close(self._run_id(line), line.data, line.at_ms)
            case _:
                raise ValueError(f"nobody here knows what '{line.op}' means")

    def _apply_weights(self, line: Line, standing: _Standing, folder: Path) -> None:
        if standing.state == TrialState.RUNNING and self._waits:
            raise NotYetError
        path = _weights_path(line, folder)
        if not path.exists():
            return  # uploaded already
        with self._store.locked(WEIGHTS_LOCK + standing.study_id):
            if standing.state.is_finished():
                self._keep_weights(line, standing, path)
        _discard_weights(line, folder)

    def _keep_weights(self, line: Line, standing: _Standing, path: Path) -> None:
        """By what the study says now, whatever it said when the line was written."""
        if keeps_all(self._store, standing.study_id):
            self._tracker.trials.keep_weights(self._run_id(line), path)
        elif self._is_best(line):
            self._tracker.trials.keep_weights(self._run_id(line), path)
            self._tracker.drop_others(line.runs, line.label.key)

    def _check_place(self, line: Line) -> None:
        """Raises TrackingError where MLflow was emptied and gave the experiment's id to others."""
        if line.study_uuid not in self._placed:
            self._tracker.check_study(line.runs, line.study_uuid)
            self._placed.add(line.study_uuid)

    def _run_id(self, line: Line) -> str:
        key = line.label.key
        if key not in self._run_ids or line.op == "close":  # a look for doubles at the end
            self._run_ids = {key: self._tracker.trials.find(line.runs, line.label, line.at_ms)}
        return self._run_ids[key]

    def _note_run(self, line: Line, run_id: str) -> None:
        """Tell Optuna which run is the trial's, for people: the run's tag is the truth."""
        self._run_ids = {line.label.key: run_id}
        assert line.trial_id is not None
        # Not by Optuna's call, which refuses for trials that have ended meanwhile.
        told = attribute_told(line.trial_id, "mlflow_run_id", run_id)
        with self._store.engine.begin() as connection:
            connection.execute(told)

    def _standing(self, line: Line) -> _Standing | None:
        """How the trial stands in the store; None if it, or its study, was deleted."""
        query = (
            select(trials.c.study_id, leases.c.attempt, trials.c.state)
            .join(leases, leases.c.trial_id == trials.c.trial_id)
            .join(_study_attributes, _study_attributes.c.study_id == trials.c.study_id)
            .where(trials.c.trial_id == line.trial_id)
            .where(_study_attributes.c.key == UUID_KEY)
            .where(_study_attributes.c.value_json == json.dumps(line.study_uuid))
        )
        with self._store.engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else _Standing(*row)


def _weights_path(line: Line, folder: Path) -> Path:
    return folder / Path(line.data["file"]).name


def _discard_weights(line: Line, folder: Path) -> None:
    if line.op == "weights":
        _weights_path(line, folder).unlink(missing_ok=True)
