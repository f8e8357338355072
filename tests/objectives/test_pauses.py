"""A pause is a place to stop or save, and leaves no trace in what is learned."""

import time

from objectives.data import SearchData
from objectives.metrics import Pause, RungMetrics
from objectives.training import train
from tests.objectives.tiny import DROPOUT, new_run, untimed


def test_a_pause_is_yielded_while_the_caller_asks_for_one(subset: SearchData) -> None:
    asked: list[int] = []
    run = new_run(subset)

    def pause() -> bool:
        asked.append(run.images_seen)
        return run.images_seen in (20, 160)

    seen = [
        event if isinstance(event, Pause) else event.rung
        for event in train(run, pause)
        if isinstance(event, Pause | RungMetrics)
    ]
    assert seen == [Pause(20), 50, 110, Pause(160), 200]
    assert asked == [20, 40, 80, 100, 140, 160, 180], "between steps, not where a rung follows"


def test_pauses_do_not_change_what_is_learned(subset: SearchData) -> None:
    whole = [untimed(event) for event in train(new_run(subset, switches=DROPOUT))]
    paused = list(train(new_run(subset, switches=DROPOUT), lambda: True))
    assert sum(isinstance(event, Pause) for event in paused) == 7
    assert [untimed(event) for event in paused if isinstance(event, RungMetrics)] == whole


def test_time_between_a_pause_and_going_on_is_not_training_time(subset: SearchData) -> None:
    run = new_run(subset)
    began_s = time.perf_counter()
    for event in train(run, lambda: run.images_seen == 20):
        if isinstance(event, Pause):
            assert run.train_time_s > 0, "what came before the pause can be saved"
            time.sleep(0.2)
    assert 0 < run.train_time_s <= time.perf_counter() - began_s - 0.2
