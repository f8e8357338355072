"""The commands for many workers: join, look after, tidy up. Parse, call, print – nothing else."""

import json
from typing import Annotated

import typer

from study.cli_options import (
    CheckpointsOption,
    DeviceOption,
    JsonOption,
    MetricsHostOption,
    MetricsPortOption,
    MlflowOption,
    StorageOption,
    console_on,
    print_line,
    print_view,
    settings_from,
)

_HIDDEN = {"hidden": True}


def team_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (worker, "worker --storage postgresql://bnvit@db/optuna"),
        (status, "status mnist-vitbn"),
        (watch, "watch mnist-vitbn"),
        (stop, "stop mnist-vitbn"),
        (delete, "delete mnist-vitbn"),
        (sync, "sync"),
        (doctor, "doctor"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def worker(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies to serve. Default: all active ones."),
    ] = None,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
    device: DeviceOption = "auto",
    max_trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Leave after N trials.")
    ] = None,
    idle_exit: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Leave when there was nothing to do for so long."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: as PyTorch chooses.")
    ] = None,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = None,
    memory_share: Annotated[float, typer.Option(min=0.01, max=1.0, **_HIDDEN)] = 1.0,
    name: Annotated[str | None, typer.Option(**_HIDDEN)] = None,
    of_parent: Annotated[int | None, typer.Option(**_HIDDEN)] = None,
) -> None:
    """Join from any node: train trials of the studies in a shared store, until they have ended."""
    from study.joining import join
    from study.worker import Limits

    settings = settings_from(storage, mlflow, checkpoints, metrics_port, metrics_host)
    try:
        code = join(
            settings,
            studies or [],
            device,
            Limits(max_trials, idle_exit),
            threads=threads,
            memory_share=memory_share,
            name=name,
            of_parent=of_parent,
        )
    except KeyboardInterrupt:  # of which Typer would make an exit without a word
        if of_parent is not None:  # which says it
            raise typer.Exit(130) from None
        raise typer.Abort from None
    raise typer.Exit(code)


def status(
    study: Annotated[str | None, typer.Argument(help="One study. Default: all.")] = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show workers, the trials they hold, trials by outcome, their pace and the time left."""
    from study.status import read_status
    from study.status_view import status_view
    from study.storage import open_store

    with open_store(settings_from(storage)) as store:
        seen = read_status(store, study)
    if as_json:
        print(json.dumps(seen.as_dict(), default=str, indent=2))
    else:
        print_view(console_on(), status_view(seen))


def watch(
    study: Annotated[str | None, typer.Argument(help="One study. Default: all.")] = None,
    storage: StorageOption = None,
) -> None:
    """Show the status live, until Ctrl-C."""
    from study.status_view import watch_status
    from study.stop import stop_on_signals
    from study.storage import open_store

    with open_store(settings_from(storage)) as store, stop_on_signals() as stopping:
        watch_status(store, study, console_on(), stopping)


def stop(study: str, storage: StorageOption = None) -> None:
    """Let a study's workers finish their trials and leave; 'run' goes on with it later."""
    from study.storage import open_store
    from study.studies import set_stopped, show_study

    with open_store(settings_from(storage)) as store:
        seen = show_study(store, study)
        set_stopped(seen.source, True)
        running = seen.outcomes.get("running", 0)
    if len(seen.ended) == len(seen.counted):
        print(f"{study}: all {len(seen.ended)} trials had ended already")
    else:
        print(
            f"{study}: no trial begins any more; {running} running will be finished; "
            "'bnvit-study run' goes on with it later"
        )


def delete(
    study: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Delete a study: its trials, its checkpoints, and its experiment in MLflow."""
    from study.removal import find_removable, remove
    from study.storage import open_store
    from study.words import counted

    settings = settings_from(storage, mlflow)
    with open_store(settings) as store:
        found = find_removable(store, study)
        what = f"'{study}' with {counted(found.trials, 'trial')}, its checkpoints and MLflow runs"
        if not yes and not typer.confirm(f"delete {what}?"):
            print("nothing was deleted")
            raise typer.Exit(1)
        for line in remove(store, settings, found):
            print(line)


def sync(storage: StorageOption = None, mlflow: MlflowOption = None) -> None:
    """Pass on to MLflow what workers that died on this node had recorded."""
    from functools import partial

    from models.errors import InputError
    from study.best import is_best
    from study.errors import TrackingError
    from study.leftovers import left_for_others
    from study.replay import spool_folder
    from study.replay import sync as replay_left_behind
    from study.storage import open_store, tracking_uri
    from study.words import counted

    settings = settings_from(storage, mlflow)
    settings.check()
    if settings.is_tracking_off:
        raise InputError("MLflow is switched off; give the one that records are to be passed on to")
    with open_store(settings) as store:
        uri = tracking_uri(settings.mlflow_uri, store)
        folder = spool_folder(settings.spool_dir, store, uri)
        done = replay_left_behind(folder, store, uri, partial(is_best, store))
        told = counted(done.replayed, "record")
        print(f"{told} passed on, {done.outdated} out of date and dropped, {done.rejected} refused")
        for other in left_for_others(settings, folder):
            print_line(console_on(stderr=True), other)
    if done.left:
        raise TrackingError(f"MLflow is away: {done.left} records still wait; try again later")


def doctor(
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    checkpoints: CheckpointsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check store, MLflow, data, device, clock and disk, and that Optuna and MLflow agree."""
    from dataclasses import asdict

    from study.doctor import examine
    from study.doctor_view import findings_table

    findings = examine(settings_from(storage, mlflow, checkpoints), device)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print_view(console_on(), findings_table(findings))
    if not all(finding.is_good for finding in findings):
        raise typer.Exit(1)
