"""The pages that people open, in a real browser."""

import re
import signal
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import new_data_dir
from tests.integration.conftest import CHROMIUM, screenshot
from tests.integration.processes import (
    STUDY,
    finish,
    run_study,
    start,
    steady_port,
    until,
    wait_for_line,
)

TRIALS = 6

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def links() -> Iterator[dict[str, str]]:
    """The pages that `bnvit-study ui` prints for a study; all ends with it."""
    with new_data_dir() as data_dir:
        run_study(f"--trials {TRIALS} --epochs 1 --train-images 300", data_dir)
        port = steady_port(2)
        ports = f"--dashboard-port {port} --mlflow-port {port + 1}"
        process = start(f"ui {ports}", data_dir)
        lines = wait_for_line(process, "Ctrl-C")
        children = psutil.Process(process.pid).children(recursive=True)
        yield dict(line.split() for line in lines if line.startswith("  "))
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process, timeout_s=60)
        assert (code, err) == (0, "")
        until(lambda: not any(_is_alive(child) for child in children))


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_optuna_dashboard_shows_the_study_and_its_trials(page: Page, links: dict[str, str]) -> None:
    page.goto(links["trials:"])
    expect(page.get_by_text(STUDY).first).to_be_visible()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.get_by_text("val_accuracy").first).to_be_visible()
    expect(page.get_by_role("heading", name="Intermediate values")).to_be_visible()
    screenshot(page, "dashboard")
    page.goto(f"{links['trials:']}/trials")
    expect(page.get_by_text(f"{TRIALS} Trials")).to_be_visible()
    expect(page.get_by_text("Best Trial")).to_be_visible()
    screenshot(page, "dashboard-trials")


def test_mlflow_shows_the_runs_and_their_metrics(page: Page, links: dict[str, str]) -> None:
    page.goto(links["compare:"])
    for number in (0, TRIALS - 1):
        link = page.get_by_role("link", name=f"{STUDY} #{number}", exact=True)
        expect(link).to_be_visible()
    # the trials and their parent
    expect(page.get_by_text("matching runs")).to_have_text(re.compile(rf"\b{TRIALS + 1}\b"))
    expect(page.get_by_text("Model metrics")).to_be_visible()
    screenshot(page, "mlflow-comparison")
    page.get_by_role("link", name=f"{STUDY} #0", exact=True).click()
    for name in ("val_accuracy", "train_loss", "grad_norm", "blocks_executed"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    screenshot(page, "mlflow-run")
