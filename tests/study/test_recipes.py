"""Studies by recipes: searched fields, what is recorded of them, fits and experiments."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from models.errors import InputError
from models.registry import variant
from objectives.recipes import Recipe, preset
from objectives.searched import Searched
from study.errors import IdentityError
from study.experiment_requests import fit_of_study
from study.export import trials_frame
from study.plan import Plan
from study.request import Request
from study.service import Session, open_session, open_sessions
from study.settings import Settings
from study.storage import Store
from study.studies import show_study
from study.technique import TechniqueOptions, technique
from study.technique_report import technique_report
from study.technique_runs import TechniqueRuns, technique_runs
from tests.conftest import SUBSET, TINY
from tests.models.zoo import small_switches
from tests.objectives.made_images import cifar_archive, cifar_batches
from tests.study.conftest import train

Search = Callable[..., Session]

DECAY = Searched("weight_decay", 1e-4, 0.3, is_log=True)
DEIT = preset("deit").recipe


@pytest.fixture(scope="module")
def three_fields(
    settings: Settings, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Session:
    """A study by DeiT's recipe over learning rate, batch size and weight decay, that has ended."""
    assert store.engine is not None  # it is the one that the session joins
    root = tmp_path_factory.mktemp("cifar")
    cifar_archive(root, "cifar10", cifar_batches("cifar10", 24))
    base = Request(
        model="deit_tiny_bn",
        switches=replace(small_switches(variant("deit_tiny")), drop_path=0.1),
        recipe=DEIT,
        dataset=f"cifar10:{root}",
        trials=3,
        epochs=1,
        pruner="none",
        device="cpu",
        study="three-fields",
        target=0.05,
    )
    space = replace(base.space, batch_size=(8, 12), others=(DECAY,))
    with open_session(replace(base, space=space), settings, lambda _: None) as session:
        train(session)
    return session


def test_three_fields_are_searched_and_recorded(store: Store, three_fields: Session) -> None:
    seen = show_study(store, "three-fields")
    assert [row.outcome for row in seen.trials] == ["complete"] * 3
    decays = [row.others["weight_decay"] for row in seen.trials]
    assert len(set(decays)) == 3
    assert all(1e-4 <= decay <= 0.3 for decay in decays)
    assert list(trials_frame(seen)["weight_decay"]) == decays
    assert three_fields.identity.title == "deit_tiny_bn, deit"

    client = mlflow.MlflowClient(tracking_uri=store.mlflow_url)
    run = client.get_run(str(seen.trials[2].mlflow_run_id))
    told = run.data.params
    assert told["recipe"] == "deit"
    assert told["recipe_fields.weight_decay"] == str(decays[2])
    assert told["recipe_fields.mixup"] == "0.8"
    assert float(told["full_lr"]) == pytest.approx(
        float(told["lr"]) * int(told["batch_size"]) / 512
    )
    assert int(told["normalisation_batch"]) == int(told["batch_size"])
    assert run.data.metrics["val_accuracy"] >= 0.05, "the target was reached"
    assert run.data.metrics["epochs_to_target"] <= run.data.metrics["epoch"]
    assert run.data.metrics["time_to_target_s"] <= run.data.metrics["train_time_s"]
    assert "val_accuracy_raw_weights" in run.data.metrics


def test_a_fit_takes_the_recipe_with_the_values_of_the_best(
    store: Store, three_fields: Session
) -> None:
    seen = show_study(store, three_fields.study.study_name)
    assert seen.best is not None
    fit = fit_of_study(seen, Request("vit"), Plan("fit", ((0.0, 0),), 2, "train"))
    assert fit.recipe == replace(DEIT, weight_decay=seen.best.others["weight_decay"])
    assert fit.plan is not None
    assert fit.plan.configurations == ((seen.best.lr, seen.best.batch_size),)


def test_another_recipe_is_another_study(
    store: Store, settings: Settings, three_fields: Session
) -> None:
    assert store.engine is not None
    other = replace(three_fields.request, recipe=replace(DEIT, mixup=0.2))
    with (
        pytest.raises(IdentityError, match=r"differs: mixup is 0\.8, not 0\.2"),
        open_session(other, settings, lambda _: None),
    ):
        pass


def test_studies_of_one_crew_have_each_its_number_of_images(
    store: Store, settings: Settings, small: Request
) -> None:
    assert store.engine is not None
    requests = [
        replace(small, study=f"{small.study}-{count}", train_images=count) for count in (200, 300)
    ]
    with open_sessions(requests, settings, lambda _: None) as sessions:
        assert [session.identity.train_images for session in sessions] == [200, 300]


OPTIONS = TechniqueOptions(3e-3, 50, seeds=2, fractions=(0.25, 0.5), levels=("none", "light1"))


def laid_out(name: str, settings: Settings, **changes: object) -> TechniqueRuns:
    base = Request("vitbn", TINY, SUBSET, epochs=1, device="cpu", seed=1, study=f"its-{name}")
    asked = replace(base, **changes)  # type: ignore[arg-type]
    return technique_runs(technique(name), asked, OPTIONS, settings)


def test_augmentation_and_regularisation_are_crossed_at_each_amount_of_data(
    settings: Settings,
) -> None:
    arms = laid_out("regularisation", settings).arms
    assert [(arm.line, arm.x) for arm in arms] == [
        (line, x)
        for line in ("none", "none, regularised", "light1", "light1, regularised")
        for x in (0.25, 0.5)
    ]
    assert {arm.request.train_images for arm in arms} == {229, 458}
    last = arms[-1].request
    assert last.recipe.augment == "randaugment"
    assert last.switches == replace(TINY, dropout=0.1, drop_path=0.1)
    assert len({arm.request.study_name for arm in arms}) == len(arms)


def test_large_patches_get_the_epochs_that_compute_as_much(settings: Settings) -> None:
    switches = small_switches(variant("deit_tiny"))
    asked = {"model": "deit_tiny_bn", "switches": replace(switches, patch_size=None)}
    small, large = laid_out("patches", settings, epochs=10, **asked).arms
    assert large.request.model == "deit_small_bn"
    assert [arm.request.switches.patch_size for arm in (small, large) if arm.request.switches] == [
        2, 4,
    ]  # fmt: skip
    assert large.request.epochs > small.request.epochs == 10
    assert small.x == pytest.approx(large.x, rel=0.05), "as many multiply-adds"
    with pytest.raises(InputError, match="patches is about deit_tiny"):
        laid_out("patches", settings)


def test_regularisation_takes_no_recipe_of_another(settings: Settings) -> None:
    for changes in ({"recipe": DEIT}, {"switches": replace(TINY, dropout=0.2)}):
        with pytest.raises(InputError, match="regularisation brings recipes"):
            laid_out("regularisation", settings, **changes)
    laid_out("regularisation", settings, recipe=Recipe(flip=0.5))


def test_each_batch_size_is_a_point(settings: Settings) -> None:
    arms = laid_out("batches", settings).arms
    assert [arm.x for arm in arms] == [32, 64, 128]
    assert [arm.request.space.batch_size for arm in arms] == [(32, 32), (64, 64), (128, 128)]


def test_transfer_is_held_against_a_probe_and_a_start_from_scratch(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="name them with --weights"):
        laid_out("transfer", settings)
    weights = str(tmp_path / "some.safetensors")
    arms = laid_out("transfer", settings, weights=weights, new_head=True).arms[::2]
    assert [arm.line for arm in arms] == ["from scratch", "fine-tuned", "linear probe"]
    assert [arm.request.weights for arm in arms] == [None, weights, weights]
    assert [arm.request.recipe.train for arm in arms] == ["all", "all", "head"]
    assert arms[2].request.recipe.marks == ["linear probe"]


def test_an_experiment_reports_each_line_against_the_first(
    store: Store, settings: Settings, search: Search
) -> None:
    assert store.engine is not None
    runs = laid_out("batches", settings, train_images=150)
    for arm in runs.arms:
        search(arm.request)
    report = technique_report(runs.asked, runs.points(), "the command")
    (table, _) = report.tables
    assert [row[:4] for row in table.rows] == [
        ("vitbn", "all", size, "2") for size in ("32", "64", "128")
    ]
    (line,) = report.charts[0].panels[0].marks
    assert line.x == (32, 64, 128)  # type: ignore[union-attr]
    assert "the command" in str(report.sections)
    with pytest.raises(InputError, match="unknown experiment 'batch'; did you mean 'batches'"):
        technique("batch")
