"""One round: a study, a storm over it, and the verdict."""

import shutil
from pathlib import Path

from study.settings import Settings
from tests.chaos.nodes import Node
from tests.chaos.stage import WORKER, Stage, new_stage, run_line
from tests.chaos.storm import Storm, Weather
from tests.chaos.verdict import Verdict, judge
from tests.integration.processes import until

STUDY = "chaos"


def play(
    weather: Weather,
    workers: int,
    trials: int,
    epochs: int,
    seed: int,
    timeout_s: float = 900,
    logs: Path | None = None,
    pruner: str = "none",
) -> tuple[Storm, Verdict]:
    """Train a study under `weather` with so many workers; what befell it and what became of it.

    `logs`: a folder that is to have what the processes said.
    """
    with new_stage() as stage:
        nodes = [stage.node(f"node-{number}", WORKER) for number in range(workers)]
        coordinator = stage.node(
            "coordinator", run_line(STUDY, trials, epochs, f"--pruner {pruner}")
        )
        storm = Storm(stage, nodes, weather, seed)
        coordinator.start()
        until(lambda: coordinator.log.exists() and "workers:" in coordinator.log.read_text())
        try:
            storm.rage(coordinator, timeout_s)
        finally:
            coordinator.kill()
            _keep_logs(stage.nodes, logs)
        assert coordinator.exit_code == 0, coordinator.log.read_text()
        for node in nodes:
            node.kill()
        verdict = judge(stage.settings, _spools(stage), STUDY, trials)
        verdict.traces = sum(_traces(node) for node in stage.nodes)
        return storm, verdict


def _traces(node: Node) -> int:
    return node.log.read_text().count("Traceback") if node.log.exists() else 0


def _keep_logs(nodes: list[Node], logs: Path | None) -> None:
    if logs is None:
        return
    logs.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        if node.log.exists():
            shutil.copy(node.log, logs / f"{node.folder.name}.log")


def _spools(stage: Stage) -> list[Settings]:
    return [stage.settings.model_copy(update={"data_dir": node.folder}) for node in stage.nodes]
