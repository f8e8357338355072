"""How a study is computed is decided when it is made, and kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from models.switches import ViTSwitches
from objectives.data import load_search_data
from objectives.datasets import MNIST_SHAPE, dataset
from study.creation import create_or_resume, identify
from study.errors import IdentityError
from study.execution import COMPILE_KEY, GRAPH, PAYS, decided, execution_of, note_execution
from study.identity import StudyIdentity
from study.request import Request
from study.storage import Store
from study.studies import show_study
from study.tables import studies_table
from tests.conftest import SUBSET, TINY
from tests.study.made import make_study

ASKED = Request(model="vitbn", switches=TINY, dataset=SUBSET, epochs=1)


def identity_of_request(request: Request) -> StudyIdentity:
    return identify(request, load_search_data(dataset(SUBSET, Path())))


def test_much_work_for_each_worker_is_compiled() -> None:
    article = replace(identity_of_request(ASKED), model="vitbn", switches=vars(ViTSwitches()))
    long = replace(article, train_images=55_000, rungs=(6_875, 27_500, 110_000, 165_000))
    assert decided(long, MNIST_SHAPE, "auto", trials=200, workers=1) == PAYS
    assert decided(long, MNIST_SHAPE, "auto", trials=200, workers=100) == GRAPH
    assert decided(long, MNIST_SHAPE, "auto", trials=2, workers=1) == GRAPH
    assert decided(long, MNIST_SHAPE, "off", trials=200, workers=1) == "off"
    assert decided(article, MNIST_SHAPE, "on", trials=1, workers=1) == "on"


def test_a_study_keeps_how_it_is_computed_unless_another_way_is_asked_for(store: Store) -> None:
    request = replace(ASKED, study="test_a_study_keeps_how")
    identity = identity_of_request(request)
    study, is_new = create_or_resume(store, identity, request, lambda: PAYS)
    assert is_new
    assert execution_of(study).compiled
    study, is_new = create_or_resume(store, identity, request, pytest.fail)
    assert not is_new
    assert study.user_attrs[COMPILE_KEY] == PAYS
    study, _ = create_or_resume(store, identity, replace(request, compile="off"), lambda: "off")
    assert not execution_of(study).compiled


def test_only_who_asks_for_none_gets_no_graph(store: Store) -> None:
    study = make_study(store, "test_only_who_asks").study
    for decision, compiled, graphed in (
        ("off", False, False),
        (GRAPH, False, True),
        (PAYS, True, True),
        ("on", True, True),
    ):
        note_execution(study, decision)
        found = execution_of(study)
        assert (found.compiled, found.graphed) == (compiled, graphed)


def test_bf16_is_marked_and_is_another_study(store: Store) -> None:
    bf16 = replace(ASKED, precision="bf16")
    assert bf16.study_name == f"{ASKED.study_name}-bf16"
    made = make_study(store, "test_bf16_is_marked")
    same_name = replace(bf16, study=made.study.study_name)
    other = identity_of_request(same_name)
    with pytest.raises(IdentityError, match="precision is float32, not bf16"):
        create_or_resume(store, other, same_name)
    named = replace(bf16, study="test_bf16_is_marked-2")
    create_or_resume(store, identity_of_request(named), named)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(studies_table([show_study(store, "test_bf16_is_marked-2")]))
    assert "vitbn, bf16" in shown.get()
