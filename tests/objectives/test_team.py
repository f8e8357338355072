"""A run that two processes train together: the run of one, decided by the first."""

import copy
import os
import signal
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.errors import InputError
from objectives.data import SearchData
from objectives.errors import MateFailedError, TeamLostError
from objectives.execution import PLAIN
from objectives.metrics import Event, Pause, RungMetrics
from objectives.objective import is_out_of_memory
from objectives.recipe import TrainConfig
from objectives.recipes import Recipe
from objectives.run import Run
from objectives.starting import start
from objectives.team import ALONE, Alone, Team
from objectives.training import train
from tests.conftest import CPU
from tests.objectives.teams import by_team
from tests.objectives.tiny import CONFIG, DROPOUT, rungs, untimed

PLAIN_SGD = Recipe(optimizer="sgd")  # Adam makes steps of a gradient that is 0 but for rounding
SHORT = replace(  # 11 and 10 images a process
    CONFIG, rungs=(42, 84), batch_size=21, lr=0.1, recipe=PLAIN_SGD
)
SYNCED = replace(SHORT, recipe=replace(PLAIN_SGD, sync_bn=True))
LAYER_NORM = replace(SHORT, model="vit")
SAME = 3e-5  # relative, but for rounding
WHOLE: dict[str, TrainConfig] = {  # what two processes train as one does
    "SyncBN": SYNCED,
    "LayerNorm": LAYER_NORM,
    "micro-batches": replace(
        SHORT,
        recipe=replace(
            SYNCED.recipe, accumulate=2, clip=0.1, mixup=0.2, checkpointing=True, ema=0.9
        ),
    ),
}
APART = replace(CONFIG, model="vit", rungs=(40, 80), switches=DROPOUT)


def trained(config: TrainConfig, data: SearchData, team: Alone = ALONE) -> tuple[list[Event], Run]:
    run = start(config, data, CPU, PLAIN, team)
    return [untimed(event) for event in train(run)], run


def weights_of(run: Run) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def trainings(team: Team, data: SearchData) -> Any:
    """Each config's events and state; how the random state differs; what a resumed run gives."""
    found: dict[str, Any] = {}
    for name, config in {**WHOLE, "BatchNorm": SHORT}.items():
        events, run = trained(config, data, team)
        found[name] = (events, run.model.state_dict(), run.normalisation_batch)
    found["apart"] = resumed(team, data)
    return found


def resumed(team: Team, data: SearchData) -> Any:
    """Weights of a run with dropout, and of one that goes on from its first process's state."""
    run, again = (start(APART, data, CPU, PLAIN, team) for _ in range(2))
    events = train(run)
    next(events)
    again.load_state_dict(copy.deepcopy(team.shared(run.state_dict)))
    saved = torch.get_rng_state()
    rungs(train(again))
    torch.set_rng_state(saved)
    rungs(events)
    return weights_of(run), weights_of(again), torch.rand(1)


@pytest.fixture(scope="module")
def teams(subset: SearchData) -> list[Any]:
    return by_team(trainings, subset)


@pytest.mark.parametrize("name", WHOLE)
def test_two_processes_train_as_one_does(name: str, teams: list[Any], subset: SearchData) -> None:
    events, run = trained(WHOLE[name], subset)
    for found, state, normalisation_batch in (team[name] for team in teams):
        for event, expected in zip(found, events, strict=True):
            assert isinstance(event, RungMetrics)
            assert isinstance(expected, RungMetrics)
            for value in ("train_loss", "val_loss", "grad_norm"):
                told = getattr(expected, value)
                assert getattr(event, value) == pytest.approx(told, rel=SAME), value
            assert event.images_seen == expected.images_seen
        torch.testing.assert_close(state, run.model.state_dict(), rtol=SAME, atol=SAME)
        if name != "LayerNorm":
            assert normalisation_batch == run.normalisation_batch
    assert teams[0][name][0] == teams[1][name][0], "the first judges for all"
    torch.testing.assert_close(teams[0][name][1], teams[1][name][1], rtol=0.0, atol=0.0)


def test_without_sync_bn_each_process_normalises_its_own_images(
    teams: list[Any], subset: SearchData
) -> None:
    events, _ = trained(SHORT, subset)
    (first, state, batch), (_, other, _) = (team["BatchNorm"] for team in teams)
    assert batch == 11
    assert isinstance(events[1], RungMetrics)
    assert first[1].train_loss != pytest.approx(events[1].train_loss, rel=10 * SAME)
    parameters = [name for name in state if "running" not in name]
    for name in parameters:
        assert torch.equal(state[name], other[name]), name
    assert any(not torch.equal(state[name], other[name]) for name in state)


def test_each_process_drops_others_and_the_same_again_after_an_interruption(
    teams: list[Any],
) -> None:
    draws = []
    for whole, resumed_, drawn in (team["apart"] for team in teams):
        torch.testing.assert_close(resumed_, whole, rtol=0.0, atol=0.0)
        draws.append(drawn)
    assert not torch.equal(*draws)


def decisions(team: Team, data: SearchData) -> Any:
    """What each process saw of a run that pauses once, and that the first leaves at a rung."""
    run = start(SYNCED, data, CPU, PLAIN, team)
    seen: list[Event] = []
    with closing(train(run, lambda: team.rank == 0 and not seen)) as events:
        for event in events:
            seen.append(event)
            if team.rank == 0 and isinstance(event, RungMetrics):
                break
    return [type(event) for event in seen], run.images_seen, team.shared(lambda: "and after")


def test_the_first_process_pauses_and_ends_the_run_for_all(subset: SearchData) -> None:
    first, second = by_team(decisions, subset)
    assert first == second == ([Pause, RungMetrics], 42, "and after")


def failures(team: Team, data: SearchData) -> Any:
    """How each process hears of memory that one of them ran out of; then they train on."""
    said = []
    for failing in (0, 1):
        run = start(SYNCED, data, CPU, PLAIN, team)
        if team.rank == failing:
            run.optimizer.register_step_pre_hook(_out_of_memory)
        try:
            rungs(train(run))
        except (MemoryError, MateFailedError) as error:
            said.append((type(error), is_out_of_memory(error)))
    events, _ = trained(SYNCED, data, team)
    return said, len(events)


def _out_of_memory(*_: object) -> None:
    raise MemoryError("out of memory")


def test_an_error_of_one_is_one_of_all_who_can_go_on(subset: SearchData) -> None:
    first, second = by_team(failures, subset)
    assert first == ([(MemoryError, True), (MateFailedError, True)], 2)
    assert second == ([(MateFailedError, True), (MemoryError, True)], 2)


def left_alone(team: Team, data: SearchData) -> Any:
    run = start(SYNCED, data, CPU, PLAIN, team)
    with closing(train(run)) as events:
        next(events)
        if team.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(TeamLostError, match="gone or silent; start the worker again"):
            next(events)
    return "left"


def test_a_killed_process_ends_the_others(subset: SearchData) -> None:
    assert by_team(left_alone, subset) == ["left", None]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model": "vit_un"}, "averages over the steps of one process"),
        ({"batch_size": 1}, "a batch of 1 cannot be divided among 2 processes"),
    ],
)
def test_what_a_team_cannot_train(changes: Any, part: str, subset: SearchData) -> None:
    with pytest.raises(InputError, match=part):
        start(replace(CONFIG, **changes), subset, CPU, PLAIN, Team(0, 2))


def test_ghost_batches_and_sync_bn_exclude_each_other() -> None:
    with pytest.raises(InputError, match="leave one of them out"):
        Recipe(sync_bn=True, nbs=4).check()
