"""Local workers that are forked before there is anything to do for them."""

import os
import subprocess
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from models.errors import InputError
from study.request import MOST_WORKERS, Request
from study.settings import Settings
from study.spares import spares_for
from tests.integration.forks import call
from tests.integration.processes import until, words_of

ONE = Request(model="vit", device="cpu", workers=1)
TWO = Request(model="vit", device="cpu", workers=2)


def told_by(function: Callable[[Connection], None]) -> list[Any]:
    """What `function` tells in a process of its own, until that has ended."""
    ours, theirs = Pipe(duplex=False)
    process = call(function, theirs)
    theirs.close()
    told = []
    while ours.poll(60):
        try:
            told.append(ours.recv())
        except EOFError:
            break
    process.join(60)
    return told


def employ_one(tell: Connection) -> None:
    with spares_for(ONE, Settings()) as (spare,):
        os.environ["BNVIT_LEASE_S"] = "-1"
        spare.employ(["worker", "some-study"], {"BNVIT_METRICS_PORT": "0"})
        tell.send((spare.wait(60), spare.stderr.read()))


def test_a_spare_does_as_it_is_told_and_finds_nothing_else_around_it() -> None:
    ((code, said),) = told_by(employ_one)
    assert code == 2
    assert said.startswith("bnvit-study: BNVIT_METRICS_PORT is '0'")
    assert len(said.splitlines()) == 1


def dismiss_one(tell: Connection) -> None:
    with spares_for(ONE, Settings()) as spares:
        spare = spares.pop()
        with pytest.raises(subprocess.TimeoutExpired):
            spare.wait(0.1)
        tell.send((spare.poll(), words_of(psutil.Process(spare.pid))))
    tell.send((spare.wait(60), spare.stderr.read()))


def test_one_that_is_not_needed_leaves_without_a_word() -> None:
    assert told_by(dismiss_one) == [(None, ["bnvit-study", "worker"]), (0, "")]


def kill_one(tell: Connection) -> None:
    with spares_for(ONE, Settings()) as (spare,):
        spare.kill()
        tell.send(spare.wait(60))
        spare.employ(["worker"], {})
        spare.send_signal(9)
        tell.send(spare.poll())


def test_one_that_was_killed_has_died_before_its_orders_reach_it() -> None:
    assert told_by(kill_one) == [-9, -9]


def be_killed(tell: Connection) -> None:
    with spares_for(TWO, Settings()) as spares:
        tell.send([spare.pid for spare in spares])
        os.kill(os.getpid(), 9)


def test_none_outlives_its_run() -> None:
    ((one, other),) = told_by(be_killed)
    assert one != other
    until(lambda: not psutil.pid_exists(one) and not psutil.pid_exists(other))


def ask_for_too_many(tell: Connection) -> None:
    request = Request(model="vit", device="cpu", workers=MOST_WORKERS + 1)
    with pytest.raises(InputError, match="workers"), spares_for(request, Settings()):
        pass
    tell.send(len(psutil.Process().children()))


def test_none_is_forked_for_a_request_that_cannot_be() -> None:
    assert told_by(ask_for_too_many) == [0]
