"""What befalls a study: kills at a steady pace, and outages of its servers at set times."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.nodes import Node
from tests.chaos.stage import Stage
from tests.integration.network import can_drop


@dataclass(frozen=True)
class Weather:
    """When things break, in seconds from the start; () for never."""

    kill_every_s: float = 2.0
    postgres_restarts_s: tuple[float, ...] = (15.0, 80.0)
    packets_dropped_s: tuple[float, ...] = (30.0,)
    dropped_for_s: float = 30.0
    mlflow_killed_s: tuple[float, ...] = (45.0,)
    mlflow_away_for_s: float = 30.0
    frozen_s: tuple[float, ...] = (20.0,)
    frozen_for_s: float = 15.0
    most_kills: int | None = None


@dataclass
class Storm:
    """Breaks things until the study has ended; keeps count."""

    stage: Stage
    nodes: list[Node]  # whose workers are killed
    weather: Weather
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def rage(self, coordinator: Node, timeout_s: float) -> None:
        """Until `coordinator`, which looks after the study, has ended."""
        plan = self._plan()
        chance = random.Random(self.seed)
        began_s = next_kill_s = time.monotonic()
        while coordinator.is_alive:
            now_s = time.monotonic()
            if now_s - began_s > timeout_s:
                raise TimeoutError(f"the study has not ended after {timeout_s:.0f} s")
            while plan and plan[0][0] <= now_s - began_s:
                _, name, action = plan.pop(0)
                self.counts[name] += 1
                action()
            if now_s >= next_kill_s and self._may_kill():
                next_kill_s = now_s + self.weather.kill_every_s
                self._kill(chance)
            self._restart_those_that_left()
            time.sleep(0.05)
        for _, _, action in plan:  # end what has begun: thaw, start, wake
            if action in (self.stage.network.thaw, self._start_mlflow, self._wake):
                action()

    def _plan(self) -> list[tuple[float, str, Callable[[], None]]]:
        weather, stage = self.weather, self.stage
        plan: list[tuple[float, str, Callable[[], None]]] = []
        plan += [(at, "restarts", stage.postgres.restart) for at in weather.postgres_restarts_s]
        for at in weather.packets_dropped_s:
            plan.append((at, "drops", self._drop))
            plan.append((at + weather.dropped_for_s, "thaws", stage.network.thaw))
        for at in weather.mlflow_killed_s:
            assert stage.mlflow is not None
            plan.append((at, "mlflow kills", stage.mlflow.kill))
            plan.append((at + weather.mlflow_away_for_s, "mlflow starts", self._start_mlflow))
        for at in weather.frozen_s:
            plan.append((at, "freezes", self._freeze))
            plan.append((at + weather.frozen_for_s, "wakes", self._wake))
        return sorted(plan, key=lambda event: event[0])

    def _drop(self) -> None:
        """Lose all packets; where the system does not let us, at least hold them back."""
        if can_drop():
            self.stage.network.drop()
        else:
            self.stage.network.freeze()

    def _start_mlflow(self) -> None:
        assert self.stage.mlflow is not None
        self.stage.mlflow.start()

    def _freeze(self) -> None:
        self.nodes[0].kill(signal.SIGSTOP)

    def _wake(self) -> None:
        self.nodes[0].kill(signal.SIGCONT)

    def _may_kill(self) -> bool:
        most = self.weather.most_kills
        return most is None or self.counts["kills"] < most

    def _kill(self, chance: random.Random) -> None:
        alive = [node for node in self.nodes if node.is_alive]
        if alive:
            chance.choice(alive).kill()
            self.counts["kills"] += 1

    def _restart_those_that_left(self) -> None:
        for node in self.nodes:
            if not node.is_alive:
                node.start()
