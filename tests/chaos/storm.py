"""What befalls a study: kills at a steady pace, and outages of its servers at set times."""

import heapq
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from tests.chaos.nodes import Node
from tests.chaos.stage import Stage
from tests.integration.network import can_drop


@dataclass(frozen=True)
class Weather:
    """When things break, in seconds from the start of each spell; () for never."""

    kill_every_s: float = 2.0
    postgres_restarts_s: tuple[float, ...] = (15.0, 80.0)
    packets_dropped_s: tuple[float, ...] = (30.0,)
    dropped_for_s: float = 30.0
    mlflow_killed_s: tuple[float, ...] = (45.0,)
    mlflow_away_for_s: float = 30.0
    frozen_s: tuple[float, ...] = (20.0,)
    frozen_for_s: float = 15.0
    spell_s: float = 120.0  # then all of that comes again
    most_kills: int | None = None


_Action = Callable[[], None]
_End = tuple[float, str, _Action]  # seconds later, its name, what it does


@dataclass(order=True)
class _Event:
    at_s: float
    order: int
    name: str = field(compare=False)
    begin: _Action = field(compare=False)
    end: _End | None = field(compare=False, default=None)
    is_end: bool = field(compare=False, default=False)


class Storm:
    """Breaks things until the study has ended; keeps count."""

    def __init__(self, stage: Stage, nodes: list[Node], weather: Weather, seed: int = 0) -> None:
        """`nodes` are those whose workers are killed."""
        self.stage = stage
        self.nodes = nodes
        self.weather = weather
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._order = count()

    def rage(self, coordinator: Node, timeout_s: float) -> None:
        """Until `coordinator`, which looks after the study, has ended; what broke is mended."""
        began_s = time.monotonic()
        plan = list(self._plan(timeout_s))
        heapq.heapify(plan)
        next_kill_s = 0.0
        try:
            while coordinator.is_alive:
                now_s = time.monotonic() - began_s
                if now_s > timeout_s:
                    raise TimeoutError(f"the study has not ended after {timeout_s:.0f} s")
                self._befall(plan, now_s)
                if now_s >= next_kill_s and self._kill():
                    next_kill_s += self.weather.kill_every_s
                self._restart_those_that_left()
                time.sleep(0.02)
        finally:
            self._befall([event for event in plan if event.is_end], float("inf"))

    def _befall(self, plan: list[_Event], now_s: float) -> None:
        while plan and plan[0].at_s <= now_s:
            event = heapq.heappop(plan)
            self.counts[event.name] += 1
            event.begin()
            if event.end is not None:
                after_s, name, action = event.end
                at_s = event.at_s + after_s
                heapq.heappush(plan, _Event(at_s, next(self._order), name, action, is_end=True))

    def _plan(self, timeout_s: float) -> Iterator[_Event]:
        """What is to begin; what ends it is planned once it has begun."""
        weather, stage = self.weather, self.stage
        dropped = (weather.dropped_for_s, "thaws", stage.network.thaw)
        away = (weather.mlflow_away_for_s, "mlflow starts", self._start_mlflow)
        frozen = (weather.frozen_for_s, "wakes", self._wake)
        kinds: list[tuple[tuple[float, ...], str, _Action, _End | None]] = [
            (weather.postgres_restarts_s, "restarts", stage.postgres.restart, None),
            (weather.packets_dropped_s, "drops", self._drop, dropped),
            (weather.mlflow_killed_s, "mlflow kills", self._kill_mlflow, away),
            (weather.frozen_s, "freezes", self._freeze, frozen),
        ]
        spell_s = 0.0
        while spell_s < timeout_s:
            for times, name, begin, end in kinds:
                for at_s in times:
                    yield _Event(spell_s + at_s, next(self._order), name, begin, end)
            spell_s += weather.spell_s

    def _drop(self) -> None:
        """Lose all packets; where the system does not let us, at least hold them back."""
        if can_drop():
            self.stage.network.drop()
        else:
            self.stage.network.freeze()

    def _kill_mlflow(self) -> None:
        assert self.stage.mlflow is not None
        self.stage.mlflow.kill()

    def _start_mlflow(self) -> None:
        assert self.stage.mlflow is not None
        self.stage.mlflow.start()

    def _freeze(self) -> None:
        self.nodes[0].kill(signal.SIGSTOP)

    def _wake(self) -> None:
        self.nodes[0].kill(signal.SIGCONT)

    def _kill(self) -> bool:
        most = self.weather.most_kills
        alive = [node for node in self.nodes if node.is_alive]
        if not alive or (most is not None and self.counts["kills"] >= most):
            return False
        self._chance.choice(alive).kill()
        self.counts["kills"] += 1
        return True

    def _restart_those_that_left(self) -> None:
        for node in self.nodes:
            if not node.is_alive:
                node.start()
