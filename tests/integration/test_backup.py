"""A backup taken while a study runs, and what goes on from it."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from study.settings import Settings
from study.storage import open_store
from study.studies import show_study
from tests.conftest import new_data_dir
from tests.integration.processes import (
    STUDY,
    finish,
    run_study,
    show,
    start_run,
    start_soon,
    start_worker,
    until,
    wait_until_said,
)

TRIALS = 3
RUN = f"--trials {TRIALS} --epochs 4 --pruner none"


def command(line: str, data_dir: Path) -> tuple[int, str, str]:
    return finish(start_soon(line, data_dir))


def curves(told: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What is known of each trial that has ended, by its number."""
    # The run's id in MLflow is noted a moment after the end.
    fields = ("outcome", "lr", "batch_size", "val_accuracy", "rungs", "attempt")
    return {
        row["number"]: {name: row[name] for name in fields}
        for row in told["trials"]
        if row["outcome"] == "complete"
    }


def test_a_backup_of_a_running_study_has_its_trials_and_goes_on(made_dir: Path) -> None:
    backup = made_dir / "backup"
    run = start_run(f"{RUN} --workers 0", made_dir)
    wait_until_said(run, "workers:")  # it has made the study
    worker = start_worker(made_dir)
    settings = Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)
    with open_store(settings) as store:
        until(lambda: show_study(store, STUDY).outcomes.get("complete", 0) >= 1, 90)
    worker.send_signal(signal.SIGSTOP)  # in mid-trial, so that the study does not end meanwhile
    code, _, err = command(f"backup {backup}", made_dir)
    worker.send_signal(signal.SIGCONT)
    assert code == 0, err
    known = curves(show(made_dir))
    for process in (worker, run):
        process.terminate()
        finish(process)
    with new_data_dir() as empty:
        damaged = Path(shutil.copytree(backup, empty / "damaged"))
        with (damaged / "optuna.dump").open("r+b") as dump:
            dump.truncate(5000)
        code, _, err = command(f"restore {damaged}", empty)
        assert (code, err.count("\n")) == (1, 1)
        assert command(f"restore {backup}", empty)[0] == 0
        restored = curves(show(empty))
        assert len(restored) >= 1
        assert restored == {number: known[number] for number in restored}
        code, _, err = command(f"restore {backup}", empty)
        assert (code, err.count("\n")) == (2, 1)
        assert "holds studies already" in err
        run_study(RUN, empty)
        ended = curves(show(empty))
        assert sorted(ended) == list(range(TRIALS))
        assert {number: ended[number] for number in restored} == restored


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("backup {full}", "exists already; name a new folder"),
        ("backup {full}/new", "there is no store in"),
        ("restore {full}", "is no backup: it has no mlflow.dump"),
    ],
)
def test_bad_input_is_one_line(data_dir: Path, line: str, part: str) -> None:
    full = data_dir / "full"
    full.mkdir()
    code, out, err = command(line.format(full=full), data_dir)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert list(full.iterdir()) == []


def test_a_shared_store_is_backed_up_where_it_runs(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNVIT_STORAGE_URL", "postgresql://bnvit@db/optuna")
    from study.backup import back_up
    from study.cli_options import settings_from

    with pytest.raises(Exception, match="back it up where it runs"):
        back_up(settings_from(), data_dir / "new")
