"""A study that keeps its weights, and the soup that is made of them."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.entities import Run

from models.errors import InputError
from objectives import card
from objectives.data import SearchData, load_test
from objectives.evaluation import evaluate
from study.experiment_requests import planned
from study.inspection import Asked as Inspection
from study.inspection import inspected
from study.model_export import export_model
from study.overview import Overview
from study.plan import Plan
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.soup import Asked, make_soup
from study.soup_words import result_lines
from study.storage import Store
from study.studies import show_study
from tests.conftest import SUBSET, TINY
from tests.objectives.tiny import new_run
from tests.study.conftest import train
from tests.study.test_cli import Command

SMALL = Request(
    model="vitbn",
    switches=TINY,
    dataset=SUBSET,
    trials=4,
    epochs=1,
    device="cpu",
    pruner="none",
)
CHANCE = 0.1


def trained(settings: Settings, **changes: object) -> Session:
    request = replace(SMALL, **changes)  # type: ignore[arg-type]
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    return session


def runs_with_weights(store: Store, study: str) -> list[Run]:
    """The trials' runs that have the file, by number; the tag says the same."""
    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    found = [
        run
        for run in runs
        if "model.safetensors" in {file.path for file in client.list_artifacts(run.info.run_id)}
    ]
    assert {run.info.run_id for run in found} == {
        run.info.run_id for run in runs if "has_weights" in run.data.tags
    }
    return sorted(found, key=lambda run: int(run.data.tags["trial_number"]))


def numbers(runs: list[Run]) -> list[int]:
    return [int(run.data.tags["trial_number"]) for run in runs]


@pytest.fixture(scope="module")
def kept(store: Store, settings: Settings) -> Overview:
    """A study of four trials, each of which kept its weights."""
    trained(settings, study="ingredients", keep_weights="all")
    return show_study(store, "ingredients")


@pytest.fixture(scope="module")
def files(subset: SearchData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights that were not trained: two of one beginning, another, and another architecture."""
    folder = tmp_path_factory.mktemp("files")
    runs = {
        "a": new_run(subset),
        "b": new_run(subset, lr=5e-3),
        "stranger": new_run(subset, seed=1),
        "wide": new_run(subset, switches=replace(TINY, dim=32)),
    }
    for name, run in runs.items():
        card.save(folder / f"{name}.safetensors", run.weights(), run.card)
    return {name: folder / f"{name}.safetensors" for name in runs}


@pytest.fixture
def bnvit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared_dir: Path,
    store: Store,
    tmp_path: Path,
) -> Command:
    assert store.engine is not None
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys, shared_dir)


def test_each_trial_trained_to_its_end_keeps_its_weights(kept: Overview, store: Store) -> None:
    assert kept.outcomes == {"complete": 4}
    assert numbers(runs_with_weights(store, "ingredients")) == [0, 1, 2, 3]


def test_a_greedy_soup_of_a_study_is_at_least_as_good_as_its_best(
    kept: Overview, bnvit: Command, subset: SearchData, settings: Settings
) -> None:
    code, out, _ = bnvit("soup ingredients --greedy --device cpu")
    assert code == 0
    told, model = card.load(Path("ingredients-soup.safetensors"))
    assert told.initialisation == "random weights of seed 0"
    accuracy = evaluate(model, subset.validation, 83).accuracy
    assert kept.best is not None
    assert kept.best.val_accuracy is not None
    assert accuracy >= kept.best.val_accuracy
    members = [line.split() for line in out.splitlines() if line.startswith("trial ")]
    ranked = sorted(kept.trials, key=lambda row: -(row.val_accuracy or 0))
    assert [words[1] for words in members] == [str(row.number) for row in ranked]
    assert [words[3] for words in members] == [f"{row.val_accuracy:.2%}" for row in ranked]
    taken = [words[2] for words in members].count("yes")
    best = f"the best member's {kept.best.val_accuracy:.2%}"
    assert f"greedy soup of {taken} of 4: {accuracy:.2%} against {best}" in out
    said = export_model("ingredients-soup.safetensors", "safetensors", True, Path("f"), settings)
    assert "folded:  7 of 7 norms" in said
    with inspected(Inspection("ingredients-soup.safetensors", dataset=SUBSET), settings) as seen:
        assert seen.subjects[0][1].accuracy == pytest.approx(accuracy)


def test_a_uniform_soup_of_runs_is_that_of_their_study(
    kept: Overview, settings: Settings, store: Store, tmp_path: Path
) -> None:
    ids = tuple(run.info.run_id for run in runs_with_weights(store, kept.study))
    one, other = tmp_path / "study.safetensors", tmp_path / "runs.safetensors"
    whole = make_soup(Asked(("ingredients",), output=one, device="cpu"), settings)
    again = make_soup(Asked(ids, output=other, device="cpu"), settings)
    assert len(again.soup.members) == 4
    assert again.images.dataset == SUBSET
    assert again.soup.val_accuracy == whole.soup.val_accuracy
    states = [card.load(path)[1].state_dict() for path in (one, other)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_test_images_are_read_once_asked_for(
    kept: Overview, bnvit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def noted(*args: object) -> object:
        read.append(1)
        return load_test(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("study.soup_images.load_test", noted)
    code, out, _ = bnvit(f"soup {kept.study} --json --device cpu -o s.safetensors")
    told = json.loads(out)
    assert (code, told["test"], read) == (0, None, [])
    code, out, _ = bnvit(f"soup {kept.study} --test --json --device cpu -o s.safetensors")
    again = json.loads(out)
    assert (code, read) == (0, [1])
    assert 0 < again["test"]["best_member"] <= 1
    assert {**again, "test": None} == told
    assert told["kept"] == 4
    assert {step["name"] for step in told["members"]} == {f"trial {n}" for n in range(4)}


def test_usually_only_the_best_keeps_its_weights_and_that_is_no_soup(
    store: Store, settings: Settings, bnvit: Command
) -> None:
    trained(settings, study="usual", trials=3)
    best = show_study(store, "usual").best
    assert best is not None
    assert numbers(runs_with_weights(store, "usual")) == [best.number]
    code, out, err = bnvit("soup usual --greedy")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "kept the weights of 1 of its 3 trials" in err
    assert "--keep-weights all and more --trials" in err
    assert list(Path().iterdir()) == []

    trained(settings, study="usual", trials=5, keep_weights="all")
    assert numbers(runs_with_weights(store, "usual")) == sorted({best.number, 3, 4})
    assert bnvit("soup usual")[0] == 0


def test_members_of_a_fit_began_differently_and_average_to_chance_when_asked(
    settings: Settings, bnvit: Command
) -> None:
    plan = Plan("fit", ((5e-3, 20),), seeds=2, trained_on="train")
    request = planned(replace(SMALL, epochs=3, seed=1, study="strangers", keep_weights="all"), plan)
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    code, _, err = bnvit("soup strangers")
    assert code == 2
    assert (
        "trial 1 began with random weights of seed 2, trial 0 with random weights of seed 1" in err
    )
    assert "one basin" in err
    made = make_soup(Asked(("strangers",), any_initialisation=True, device="cpu"), settings)
    assert min(step.val_accuracy for step in made.soup.steps) > 0.6
    assert made.soup.val_accuracy < 3 * CHANCE
    assert made.told.initialisation is None


def test_files_make_a_soup(files: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    targets = tuple(str(files[name]) for name in "ab")
    path = tmp_path / "s.safetensors"
    made = make_soup(Asked(targets, True, dataset=SUBSET, device="cpu", output=path), settings)
    assert len(made.soup.members) == 1  # these two are the same still
    assert any("no other member makes" in line for line in result_lines(made))
    state = card.load(path)[1].state_dict()
    for key, value in card.load(files["a"])[1].named_parameters():
        assert torch.equal(state[key], value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{a} {wide}", "a soup of different architectures cannot be made: dim is 32, not 16"),
        ("{a} {stranger}", "began with random weights of seed 1, "),
        ("{a}", "alone is"),
        ("{a} {a}", "a member is named twice"),
        ("{a} {b} -o {b}", "is a member of the soup"),
        ("{a} {b} -o none/s.safetensors", "there is no folder"),
        ("{a} {b} -o s.onnx", "must end in .safetensors"),
        ("{a} {b} --dataset fake:96x3x32x4", "the members take images of 28 pixels"),
        ("{a} nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("ingredient", "no study 'ingredient'; did you mean 'ingredients'?"),
    ],
)
def test_what_makes_no_soup_is_refused_in_one_line(
    kept: Overview, files: dict[str, Path], bnvit: Command, line: str, message: str
) -> None:
    assert kept.best is not None
    before = {name: path.read_bytes() for name, path in files.items()}
    named = {name: shlex.quote(str(path)) for name, path in files.items()}
    code, out, err = bnvit(f"soup --device cpu {line.format(**named)}")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_the_wish_to_keep_all_is_said_again_and_checked(settings: Settings) -> None:
    asked = replace(SMALL, keep_weights="all")
    assert "--keep-weights all" in asked.command()
    assert "--keep-weights" not in SMALL.command()
    with pytest.raises(InputError, match="unknown keep-weights 'some'; known: best, all"):
        replace(SMALL, keep_weights="some").check()  # type: ignore[arg-type]
    untracked = Settings(data_dir=settings.data_dir, storage_url=None, mlflow_uri="none")
    with (
        pytest.raises(InputError, match="tracking is off"),
        open_session(asked, untracked, lambda _: None),
    ):
        pass
