"""Workers of two processes, started by torchrun's own agent, on a real store."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import pytest
import torch

from models.errors import InputError
from objectives.errors import TeamLostError
from objectives.recipes import Recipe
from objectives.search_space import SearchSpace
from objectives.team import Team
from study import service
from study.following import follow, keep_waiting
from study.plan import COMPUTED
from study.request import Request
from study.settings import Settings
from study.shelf import Shelf
from study.storage import Store
from study.studies import find_study, set_stopped, show_study
from study.torchrun import Seat, check_command, seat
from tests.conftest import CPU
from tests.integration.forks import Forked
from tests.integration.processes import environment_on, finish, start_soon, until
from tests.objectives.teams import by_team
from tests.study.conftest import LEASE_S

PROCESSES = 2
END_S = 15.0  # for all of them to leave
LARGE = SearchSpace(batch_size=(100, 120))  # few steps
LONG = 400  # epochs: until something happens to the trial


@pytest.fixture
def study(store: Store, small: Request) -> Iterator[Request]:
    """A study of the test's own, of which nothing is left to train for other tests."""
    request = replace(small, recipe=Recipe(sync_bn=True), trials=5, space=LARGE)
    yield request
    set_stopped(find_study(store, request.study_name), True)


def create(request: Request, settings: Settings) -> str:
    with service.open_session(request, settings, lambda _: None):
        return request.study_name


def torchrun(line: str, settings: Settings) -> Forked:
    environment = {**environment_on(settings.data_dir), "BNVIT_LEASE_S": str(LEASE_S)}
    return Forked.start(line, environment, PROCESSES)


def worker(study: str, settings: Settings) -> Forked:
    return torchrun(f"worker --device cpu --threads 1 {study}", settings)


def has_rungs(store: Store, study: str) -> bool:
    return any(len(row.rungs) >= 2 for row in show_study(store, study).trials)


def processes_of(agent: Forked) -> list[psutil.Process]:
    """The processes that an agent has started, by rank."""
    return sorted(psutil.Process(agent.pid).children(), key=lambda process: process.pid)


def test_trials_end_by_the_first_process_for_both(
    store: Store, study: Request, settings: Settings
) -> None:
    name = create(study, settings)
    code, _, said = finish(worker(name, settings))
    assert code == 0, said
    assert "Traceback" not in said
    seen = show_study(store, name)
    assert len(seen.ended) == 5
    assert seen.outcomes["pruned"] > 0
    assert seen.outcomes["complete"] > 0
    for trial in seen.source.trials:
        assert trial.user_attrs[COMPUTED]["processes"] == PROCESSES


def test_sigterm_puts_the_trial_back_and_a_worker_of_one_process_goes_on(
    store: Store, study: Request, settings: Settings
) -> None:
    name = create(replace(study, epochs=LONG, trials=1), settings)
    agent = worker(name, settings)
    until(partial(has_rungs, store, name))
    started = processes_of(agent)
    agent.terminate()
    ends = [f"process {rank} ends with 0" for rank in range(PROCESSES)]
    until(lambda: all(end in agent.err.read_text() for end in ends), END_S)
    for process in started:
        process.kill()  # an agent that is terminated leaves forks waiting for half a minute
    _, _, said = finish(agent)
    (trial,) = show_study(store, name).trials
    assert trial.outcome == "waiting", said
    assert "is put back with what it has learnt" in said
    alone = start_soon(f"worker --device cpu --threads 1 {name}", settings.data_dir)
    until(lambda: "was trained by 2 processes and goes on with 1" in alone.err.read_text())
    alone.terminate()
    assert finish(alone)[0] == 0


def test_where_a_process_is_killed_the_first_puts_the_trial_back_and_leaves(
    store: Store, study: Request, settings: Settings
) -> None:
    name = create(replace(study, epochs=LONG, trials=1), settings)
    agent = worker(name, settings)
    until(partial(has_rungs, store, name))
    started = processes_of(agent)
    killed_at_s = time.monotonic()
    started[1].kill()
    psutil.wait_procs(started, END_S)
    assert not any(process.is_running() for process in started)
    code, _, said = finish(agent)
    assert time.monotonic() - killed_at_s < END_S
    assert code != 0
    assert "another process of this worker is gone or silent; start the worker again" in said
    assert show_study(store, name).trials[0].outcome == "waiting"


def left_behind(team: Team, settings: Settings) -> Any:
    """What becomes of a process that waits for orders when the first is killed."""
    if team.rank == 0:
        keep_waiting(team)
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(TeamLostError):
        follow(team, Shelf(settings.data_dir), CPU)
    return "left"


def test_where_the_first_is_killed_the_others_leave(settings: Settings) -> None:
    assert by_team(left_behind, settings) == [None, "left"]


def test_other_commands_are_refused_in_one_line(settings: Settings) -> None:
    code, _, said = finish(torchrun("run --model vitbn --trials 2", settings))
    assert code != 0
    (told,) = [line for line in said.splitlines() if line.startswith("bnvit-study: ")]
    assert "torchrun has started 2 processes of 'run', which is meant for one" in told
    assert "bnvit-study worker STUDY" in told


def test_a_seat_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # of something else
    assert seat() == Seat(0, 1, 0, 1)
    check_command("run")
    told = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    for name, value in {**told, "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert seat() == Seat(3, 4, 1, 2)
    check_command("worker")
    with pytest.raises(SystemExit):  # the first process says why
        check_command("run")


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Seat(3, 4, local_rank=1, local_size=2)
    assert second.device_name("auto") == "auto"  # there is none: the CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.device_name("auto") == second.device_name("cuda") == "cuda:1"
    assert second.device_name("cpu") == "cpu"
    assert Seat().device_name("cuda") == "cuda"
    with pytest.raises(InputError, match="4 processes cannot share the device 'cuda:0'"):
        second.device_name("cuda:0")
    with pytest.raises(InputError, match="3 processes here for 2 GPUs; give --nproc-per-node 2"):
        Seat(0, 3, 0, 3).device_name("auto")
