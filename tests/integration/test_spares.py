"""Local workers that are forked before there is anything to do for them."""

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.errors import InputError
from objectives.compiling import CACHE_VARIABLE
from study.errors import WorkerError
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
    with spares_for([ONE], Settings()) as (spare,):
        os.environ["BNVIT_LEASE_S"] = "-1"
        spare.employ(["worker", "some-study"], {"BNVIT_METRICS_PORT": "0"})
        tell.send((spare.wait(60), spare.stderr.read()))


def test_a_spare_does_as_it_is_told_and_finds_nothing_else_around_it() -> None:
    ((code, said),) = told_by(employ_one)
    assert code == 2
    assert said.startswith("bnvit-study: BNVIT_METRICS_PORT is '0'")
    assert len(said.splitlines()) == 1


def dismiss_one(tell: Connection) -> None:
    with spares_for([ONE], Settings()) as (spare,):
        with pytest.raises(subprocess.TimeoutExpired):
            spare.wait(0.1)
        until(lambda: words_of(psutil.Process(spare.pid)) == ["bnvit-study", "worker"])
        tell.send(spare.poll())
    tell.send((spare.poll(), spare.stderr.closed))


def test_one_that_is_not_needed_is_gone_at_the_end() -> None:
    assert told_by(dismiss_one) == [None, (-9, True)]


def kill_one(tell: Connection) -> None:
    with spares_for([ONE], Settings()) as (spare,):
        spare.kill()
        tell.send(spare.wait(60))
        spare.employ(["worker"], {})
        spare.send_signal(9)
        tell.send(spare.poll())


def test_one_that_was_killed_has_died_before_its_orders_reach_it() -> None:
    assert told_by(kill_one) == [-9, -9]


def employ_under_bad_conditions(tell: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.close(0)
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE}
    os.environ.clear()
    os.environ.update(environment)
    with spares_for([TWO], Settings()) as spares:
        tell.send(CACHE_VARIABLE in os.environ)
        spares[0].employ(["worker", "--device", "gpu"], environment)
        tell.send((spares[0].wait(60), "unknown device 'gpu'" in spares[0].stderr.read()))


def test_what_the_run_found_around_it_does_no_harm() -> None:
    """Ignored ends of children, a closed standard input; torch leaves no folder of its choice."""
    assert told_by(employ_under_bad_conditions) == [False, (2, True)]


def interrupt_while_forking(tell: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.register_at_fork(before=partial(os.kill, os.getpid(), signal.SIGINT))
    try:
        with spares_for([TWO], Settings()):
            tell.send("went on")
    except KeyboardInterrupt:
        tell.send([child.pid for child in psutil.Process().children()])


def test_an_interruption_amid_forks_is_not_lost() -> None:
    assert told_by(interrupt_while_forking) == [[]]


def run_out_of_files(tell: Connection) -> None:
    used = len(list(Path("/proc/self/fd").iterdir()))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, most))
    many = replace(ONE, workers=50)
    with pytest.raises(WorkerError, match="choose fewer"), spares_for([many], Settings()):
        pass
    tell.send(len(psutil.Process().children()))


def test_too_many_are_one_clear_error() -> None:
    assert told_by(run_out_of_files) == [0]


def be_killed(tell: Connection) -> None:
    with spares_for([TWO], Settings()) as spares:
        tell.send([spare.pid for spare in spares])
        os.kill(os.getpid(), 9)


def test_none_outlives_its_run() -> None:
    ((one, other),) = told_by(be_killed)
    assert one != other
    until(lambda: not psutil.pid_exists(one) and not psutil.pid_exists(other))


def ask_for_too_many(tell: Connection) -> None:
    request = Request(model="vit", device="cpu", workers=MOST_WORKERS + 1)
    with pytest.raises(InputError, match="workers"), spares_for([request], Settings()):
        pass
    tell.send(len(psutil.Process().children()))


def test_none_is_forked_for_a_request_that_cannot_be() -> None:
    assert told_by(ask_for_too_many) == [0]
