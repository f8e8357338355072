"""Fast ways of computing a run against the plain one: the same numbers but for rounding."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from models.errors import InputError
from models.grammar import NORMS
from models.registry import ARTICLE, variant
from models.switches import ViTSwitches
from objectives import compiling
from objectives.compiling import _Here, _warn_once, pays, possible, uncompilable, why_not_compiled
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE, SHAPES
from objectives.execution import FAST, PLAIN, Execution
from objectives.precision import Precision, check_precision
from objectives.recipes import Recipe
from objectives.run import Run
from objectives.starting import start
from objectives.training import train
from tests.conftest import CPU, TINY
from tests.objectives.tiny import CONFIG, rungs

COMPILED = replace(FAST, compiled=True)
# Heads as wide as the tokens, so that attention is merged.
WIDE = ViTSwitches(dim=16, depth=2, heads=2, dim_head=16, mlp_dim=32)
LOSS_TOLERANCE = 2e-5  # after 100 steps; rounding alone moved it by up to 4e-6


Trained = Callable[[str, Execution, Precision], Run]


def _trained(data: SearchData, model: str, execution: Execution, precision: Precision) -> Run:
    """A run of 100 steps, at its end."""
    rungs = (20, 500, 2_000)
    config = replace(CONFIG, model=model, switches=WIDE, rungs=rungs, precision=precision)
    run = start(config, data, CPU, execution)
    list(train(run))
    return run


@pytest.fixture(scope="module")
def trained(subset: SearchData) -> Trained:
    """Runs of 100 steps, each made once; not to be trained on."""
    return cache(partial(_trained, subset))


@pytest.mark.parametrize("model", [*ARTICLE, "vit_un", "vit_prepbn", "vit_bn_wn_relu6"])
def test_the_loss_curve_is_that_of_the_plain_way(model: str, trained: Trained) -> None:
    fast, plain = (rungs(trained(model, way, "float32").curve) for way in (FAST, PLAIN))
    assert plain[-1].train_loss < plain[0].train_loss - 0.1, "it must have learned"
    for mine, theirs in zip(fast, plain, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, abs=LOSS_TOLERANCE)
        assert mine.val_loss == pytest.approx(theirs.val_loss, abs=LOSS_TOLERANCE)


@pytest.mark.parametrize("model", [*ARTICLE, *(f"vit_{norm}" for norm in NORMS if norm != "ln")])
def test_bf16_products_follow_the_curve_of_float32(model: str, trained: Trained) -> None:
    float32, bf16 = (
        rungs(trained(model, FAST, precision).curve) for precision in ("float32", "bf16")
    )
    for mine, theirs in zip(bf16, float32, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, abs=0.03)
        assert mine.val_loss == pytest.approx(theirs.val_loss, abs=0.03)
    assert bf16[-1].train_loss != float32[-1].train_loss


@pytest.mark.parametrize("model", ["vitbn", "vit_bn"])
def test_bf16_judges_a_folded_model_as_it_judges_one_with_its_norms(
    model: str, trained: Trained
) -> None:
    folded, as_it_is = (
        rungs(trained(model, way, "bf16").curve) for way in (FAST, replace(FAST, folded=False))
    )
    for mine, theirs in zip(folded, as_it_is, strict=True):
        assert mine.train_loss == theirs.train_loss
        assert mine.val_loss == pytest.approx(theirs.val_loss, abs=0.005)


def test_bf16_keeps_weights_and_averages_in_float32(trained: Trained) -> None:
    run = trained("vitbn", FAST, "bf16")
    floating = [value for value in run.weights().values() if value.is_floating_point()]
    floating += [state["exp_avg"] for state in run.optimizer.state.values()]
    assert {value.dtype for value in floating} == {torch.float32}


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="unknown precision 'half'; known: float32, bf16, fp16"):
        check_precision("half")


def test_an_execution_says_what_it_does() -> None:
    assert str(FAST) == "merged+folded+fused"
    assert str(PLAIN) == "plain"


def test_a_run_says_what_is_really_done(subset: SearchData) -> None:
    for switches, expected in ((WIDE, "merged+folded+fused"), (TINY, "folded+fused")):
        config = replace(CONFIG, model="vit", switches=switches)
        assert str(start(config, subset, CPU, Execution(graphed=True)).execution) == expected
    mps = possible(replace(FAST, compiled=True, graphed=True), nn.Identity(), torch.device("mps"))
    assert str(mps) == "merged"


@pytest.mark.parametrize(("model", "graphed"), [("vit_prepbn", False), ("vit_un", True)])
def test_what_changes_in_the_course_of_a_run_is_no_graph(model: str, graphed: bool) -> None:
    built = variant(model).build(MNIST_SHAPE)
    found = possible(replace(FAST, graphed=True), built, torch.device("cuda"))
    assert found.graphed is graphed


@pytest.mark.parametrize(
    ("recipe", "compiled", "graphed"),
    [
        (Recipe(label_smoothing=0.1, mixup=0.8, ema=0.9), True, True),
        (Recipe(schedule="cosine"), True, False),
        (Recipe(clip=1.0), True, False),
        (Recipe(accumulate=2), True, False),
        (Recipe(freeze_bn=1), False, False),
        (Recipe(nbs=8), False, False),
        (Recipe(checkpointing=True), False, False),
    ],
)
def test_what_a_recipe_changes_on_the_way_is_neither_compiled_nor_recorded(
    recipe: Recipe, compiled: bool, graphed: bool
) -> None:
    wanted = replace(FAST, compiled=True, graphed=True)
    on_cuda = possible(wanted, nn.Identity(), torch.device("cuda"), recipe)
    assert on_cuda.graphed is graphed
    assert (uncompilable(recipe) == "") == compiled
    assert not possible(wanted, nn.Identity(), torch.device("cuda"), Recipe(), "fp16").graphed


@pytest.mark.parametrize("missing", ["compiler", "norm"])
def test_what_cannot_be_compiled_is_said_and_runs_as_it_is(
    missing: str,
    subset: SearchData,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = "vit_un" if missing == "norm" else "vitbn"
    if missing == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler -O2")
    _warn_once.cache_clear()
    config = replace(CONFIG, model=model, switches=WIDE)
    run = start(config, subset, CPU, COMPILED)
    list(train(run))
    start(config, subset, CPU, COMPILED)
    assert not run.execution.compiled
    reasons = {"compiler": "no C++ compiler is installed", "norm": "Unified Normalization"}
    assert [reasons[missing] in record.getMessage() for record in caplog.records] == [True]


def test_a_compiler_that_fails_is_not_tried_again_and_training_goes_on(
    subset: SearchData, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("no such header")

    monkeypatch.setattr(torch, "compile", lambda _loss: broken)
    monkeypatch.setattr(_Here, "failure", "")
    _warn_once.cache_clear()
    config = replace(CONFIG, model="vit", switches=WIDE)
    run, plain = (start(config, subset, CPU, way) for way in (COMPILED, FAST))
    curve = rungs(train(run))
    assert not start(config, subset, CPU, COMPILED).execution.compiled
    assert [record.getMessage() for record in caplog.records] == [
        "the training step could not be compiled (no such header); it runs as it is",
        "the training step is not compiled: that failed before (no such header)",
    ]
    assert [m.train_loss for m in curve] == [m.train_loss for m in rungs(train(plain))]


@pytest.mark.skipif(bool(why_not_compiled(nn.Identity())), reason="no C++ compiler")
def test_compiled_steps_follow_the_plain_curve_at_two_batch_sizes(
    subset: SearchData, caplog: pytest.LogCaptureFixture
) -> None:
    compiled_before = counters["stats"]["unique_graphs"]
    for batch_size in (20, 33):
        shallow = replace(WIDE, depth=1)
        config = replace(CONFIG, switches=shallow, batch_size=batch_size, rungs=(20, 500))
        run, plain = (start(config, subset, CPU, way) for way in (COMPILED, PLAIN))
        assert run.execution.compiled
        for mine, theirs in zip(rungs(train(run)), rungs(train(plain)), strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=LOSS_TOLERANCE)
            assert mine.val_loss == pytest.approx(theirs.val_loss, abs=LOSS_TOLERANCE)
    assert counters["stats"]["unique_graphs"] == compiled_before + 1, "one for both sizes"
    assert not [record for record in caplog.records if record.name == compiling.log.name]


def test_compilation_pays_for_much_work_on_small_models_only() -> None:
    for name, images, expected in (("vitbn", 1e5, False), ("vitbn", 1e6, True)):
        model = variant(name).build_blank(MNIST_SHAPE)
        assert pays(model, MNIST_SHAPE, images) is expected
    deit, shape = variant("deit_tiny").build_blank(SHAPES["cifar10"]), SHAPES["cifar10"]
    assert not pays(deit, shape, 1e9)


@pytest.mark.parametrize(("before", "here"), [(PLAIN, FAST), (FAST, PLAIN)])
def test_a_run_that_is_resumed_is_computed_as_it_is_here(
    before: Execution, here: Execution, subset: SearchData
) -> None:
    config = replace(CONFIG, switches=WIDE, rungs=(500, 1_000))
    saved, resumed = (start(config, subset, CPU, way) for way in (before, here))
    going_on = train(saved)
    next(going_on)
    resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert [group["fused"] for group in resumed.optimizer.param_groups] == [here.fused]
    list(going_on)
    list(train(resumed))
    for mine, theirs in zip(rungs(resumed.curve), rungs(saved.curve), strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, abs=LOSS_TOLERANCE)
        assert mine.val_loss == pytest.approx(theirs.val_loss, abs=LOSS_TOLERANCE)
