"""The status for people: once, or live."""

import time
from datetime import timedelta

from optuna.exceptions import StorageInternalError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from study.connections import is_outage
from study.overview import Overview
from study.status import RunningTrial, Status, StatusReader, StudyStatus
from study.stop import Stop
from study.storage import Store
from study.summary import summary
from study.tables import plain_table
from study.words import counted
from study.worker_status import WorkerStatus, duration

REFRESH_S = 1.0  # on a terminal
PRINT_S = 10.0  # elsewhere


def status_view(status: Status) -> RenderableType:
    """One study with its trials that run, or a line for each study; then the workers."""
    parts: list[RenderableType] = []
    if status.asked is not None:
        for study in status.studies:
            parts += _details(study)
    elif status.studies:
        parts.append(_studies_table(status.studies))
    else:
        parts.append(Text("no studies yet"))
    parts.append(Text())
    parts.append(_workers_table(status.workers) if status.workers else Text("no workers"))
    return Group(*parts)


def watch_status(store: Store, study: str | None, console: Console, stop: Stop) -> None:
    """Show the status of `study`, or of all, until `stop` is set; rides out an absent store.

    On a terminal it is renewed each second, elsewhere printed every ten. Raises
    UnknownStudyError where the study is not there, or is deleted meanwhile.
    """
    look = _Look(StatusReader(store, study))
    if not console.is_terminal:
        console.print(look())
        while not stop.wait(PRINT_S):
            console.print(Text(), look())
        return
    with Live(look(), console=console, auto_refresh=False) as live:
        while not stop.wait(REFRESH_S):
            live.update(look(), refresh=True)


class _Look:
    """A look at the store; while that is away, at how things stood before."""

    def __init__(self, reader: StatusReader) -> None:
        self.reader = reader
        self.last: Status | None = None
        self.away_since = ""

    def __call__(self) -> RenderableType:
        try:
            self.last = self.reader.read()
        except (SQLAlchemyError, StorageInternalError) as error:
            if self.last is None or not is_outage(error):
                raise
            self.away_since = self.away_since or time.strftime("%H:%M:%S")
            away = Text(f"the store is away since {self.away_since}; last seen:", style="bold red")
            return Group(away, status_view(self.last))
        self.away_since = ""
        return Group(Text(f"{self.last.at:%H:%M:%S}", style="dim"), status_view(self.last))


def _details(study: StudyStatus) -> list[RenderableType]:
    seen = study.seen
    head = Text.assemble((seen.study, "bold"), f"  {_count(seen)}, {_outlook(study)}")
    about = f"{seen.identity.title} on {seen.identity.dataset}"
    if study.trials_per_hour is not None:
        about += f", {_rate(study.trials_per_hour)} trials per hour"
    parts: list[RenderableType] = [head, Text(about), *map(Text, summary(seen))]
    if study.running:
        parts += [Text(), _running_table(study)]
    return parts


def _running_table(study: StudyStatus) -> Table:
    table = plain_table()
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("worker", overflow="fold")
    for heading in ("attempt", "epochs", "accuracy at epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("last sign of life")
    for trial in study.running:
        table.add_row(*_running_cells(trial, study.seen.identity.train_images))
    return table


def _running_cells(trial: RunningTrial, train_images: int) -> list[str | Text]:
    rung = ""
    if trial.rung is not None:
        rung = f"{trial.val_accuracy:.2%} at {trial.rung / train_images:.3g}"
    ago = "" if trial.silent_s is None else f"{duration(trial.silent_s)} ago"
    return [
        str(trial.number),
        Text(trial.worker or ""),
        str(trial.attempt),
        f"{trial.images_seen / train_images:.3g}",
        rung,
        Text(f"{ago}; lost, waits for a worker", style="red") if trial.is_lost else ago,
    ]


def _studies_table(studies: tuple[StudyStatus, ...]) -> Table:
    table = plain_table()
    table.add_column("study", overflow="fold")
    for heading in ("ended", "running", "best", "trials/h"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what is to come")
    for study in studies:
        seen, best, per_hour = study.seen, study.seen.best, study.trials_per_hour
        table.add_row(
            Text(seen.study),
            f"{len(seen.ended)} of {len(seen.counted)}",
            str(len(study.running)),
            f"{best.val_accuracy:.2%}" if best and best.val_accuracy is not None else "",
            _rate(per_hour) if per_hour is not None else "",
            _outlook(study),
        )
    return table


def _workers_table(workers: tuple[WorkerStatus, ...]) -> Table:
    table = plain_table()
    for heading in ("worker", "device", "state"):
        table.add_column(heading, overflow="fold")
    for worker in workers:
        style = "red" if worker.is_silent else "dim" if worker.study is None else ""
        table.add_row(Text(worker.name), Text(worker.device), Text(worker.state, style=style))
    return table


def _count(seen: Overview) -> str:
    return f"{len(seen.ended)} of {counted(len(seen.counted), 'trial')} ended"


def _rate(per_hour: float) -> str:
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.1f}"


def _outlook(study: StudyStatus) -> str:
    """What is to come, in a few words."""
    if study.has_ended:
        return "nothing left to do"
    if study.is_stopped:
        return "stopping" if study.is_worked_on else "stopped"
    if not study.is_worked_on:
        return "waits for workers"
    if study.left_s is None:
        return "time left not known yet"
    return f"about {timedelta(seconds=round(study.left_s))} left"
