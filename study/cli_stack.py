"""The commands for the services around the workers. Parse, call, print – nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli_options import MlflowOption, StorageOption, settings_from


def stack_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command, example in (
        (up, "up"),
        (down, "down"),
        (backup, "backup monday"),
        (restore, "restore monday"),
        (migrate, "migrate"),
    ):
        app.command(epilog=f"Example: bnvit-study {example}")(command)


def up(
    port: Annotated[int, typer.Option(min=1, max=65534, help="Port of the pages.")] = 8080,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Start store, MLflow and dashboard in the background, behind a login where nginx is."""
    from study.stack.updown import up as start

    for line in start(settings_from(storage, mlflow), port):
        print(line, flush=True)


def down(
    yes: Annotated[bool, typer.Option("--yes", help="Stop workers, too; do not ask.")] = False,
) -> None:
    """Stop what 'up' started; asks first if workers are at work on the store."""
    from study.stack.updown import find_running

    found = find_running(settings_from())
    if found.users and not yes:
        question = (
            f"still at work: {found.describe_users()}; stop them as well? Their trials are saved "
            "and go on with the next 'run'"
        )
        if not typer.confirm(question):
            print("nothing was stopped")
            raise typer.Exit(1)
    for line in found.carry_out():
        print(line)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder to write the backup to.")],
) -> None:
    """Write the embedded store, studies and MLflow's runs, to a folder; studies may be running."""
    from study.backup import back_up

    settings = settings_from()
    back_up(settings, folder)
    print(f"backed up to {folder}; weights are files, in {settings.data_dir / 'artifacts'}")


def restore(
    folder: Annotated[Path, typer.Argument(help="A backup's folder.")],
) -> None:
    """Read a backup into a data folder without studies, as BNVIT_DATA_DIR names it."""
    from study.backup import restore as read_back

    settings = settings_from()
    read_back(settings, folder)
    print(f"restored into {settings.data_dir}; a study goes on with the 'run' that began it")


def migrate(
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="A shared store was backed up where it runs.")
    ] = False,
    storage: StorageOption = None,
) -> None:
    """Bring tables that older versions made up to date; the embedded store is backed up before."""
    from study.migration import migrate as bring_up_to_date

    for line in bring_up_to_date(settings_from(storage), backed_up):
        print(line, flush=True)
