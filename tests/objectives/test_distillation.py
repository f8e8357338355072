"""What a student learns from its teacher, and two heads from labels alone."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import InputError
from models.modes import modes_kept
from models.switches import ZooSwitches
from models.torchvision_import import timm_module
from objectives import card
from objectives.compiling import possible
from objectives.data import SearchData
from objectives.distillation import distance, taught_by, training_loss
from objectives.evaluation import token_cosine
from objectives.execution import Execution
from objectives.images import as_pixels
from objectives.metrics import Pause
from objectives.recipes import Recipe
from objectives.run import Run
from objectives.teacher import Teacher, load_teacher
from objectives.training import train
from tests.conftest import CPU, TINY
from tests.objectives.tiny import DROPOUT, new_run, rungs, untimed

TWO_HEADS = "deit_base_distilled"
SMALL = ZooSwitches(dim=16, depth="2", heads=2)
CHANCE = 0.1


@pytest.fixture(scope="module")
def teacher(subset: SearchData, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of a model that knows something, and errs often enough to be told from the labels."""
    run = new_run(subset, model="vit", lr=3e-3, rungs=(3_000,))
    list(train(run))
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    card.save(path, run.weights(), run.card)
    return str(path)


def student(subset: SearchData, recipe: Recipe, **changes: Any) -> Run:
    """A run of two heads that is at its beginning."""
    told: dict[str, Any] = {"model": f"{TWO_HEADS}_bn", "switches": SMALL} | changes
    return new_run(subset, recipe=recipe, **told)


def trained(subset: SearchData, recipe: Recipe, **changes: Any) -> Run:
    """A run of two heads, or of what `changes` say, that has ended."""
    run = student(subset, recipe, **{"lr": 3e-3, "rungs": (3_000,)} | changes)
    list(train(run))
    return run


@pytest.fixture(scope="module")
def by_labels(subset: SearchData) -> Run:
    """A run of two heads that had no teacher."""
    return trained(subset, Recipe())


def answers(run: Run) -> tuple[Tensor, Tensor]:
    """Logits of both heads on the held-out images; of one head twice those."""
    given: list[Tensor] = []
    with run.judged() as model, modes_kept(model), torch.no_grad():
        hooks = [
            head.register_forward_hook(lambda *told: given.append(told[-1])) for head in heads(run)
        ]
        logits = model.eval()(run.data.validation.all_pixels())
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(logits, (given[0] + given[-1]) / 2)
    return given[0], given[-1]


def heads(run: Run) -> list[nn.Linear]:
    """The head of the class token, and that of the distillation token."""
    named = dict(run.model.named_modules())
    found = [named[name] for name in ("mlp_head", "head", "head_dist") if name in named]
    return [head for head in found if isinstance(head, nn.Linear)]


def alike(logits: Tensor, told: Tensor) -> float:
    """The share of images of which logits (N, classes) say what others, or labels (N,), say."""
    classes = told.argmax(1) if told.dim() == 2 else told
    return float((logits.argmax(1) == classes).float().mean())


def taught(run: Run, teacher: str) -> Tensor:
    """The teacher's logits on the held-out images."""
    split = run.data.validation
    return taught_by(load_teacher(teacher), split)(split.all_pixels())


@pytest.fixture(scope="module")
def contrary(teacher: str) -> str:
    """A teacher that calls each class by the name of the next."""
    known, model = card.load(Path(teacher))
    state = {
        key: value.roll(1, 0) if key.startswith("mlp_head") else value
        for key, value in model.state_dict().items()
    }
    path = Path(teacher).with_name("contrary.safetensors")
    card.save(path, state, known)
    return str(path)


@pytest.fixture(scope="module", params=["hard", "soft"])
def distilled(subset: SearchData, contrary: str, request: pytest.FixtureRequest) -> Run:
    """A run of two heads that had a contrary teacher."""
    return trained(subset, Recipe(teacher=contrary, distillation=request.param))


def test_one_head_learns_from_the_labels_and_the_other_from_the_teacher(
    subset: SearchData, contrary: str, by_labels: Run, distilled: Run
) -> None:
    first, second = answers(distilled)
    labels, told = subset.validation.labels, taught(distilled, contrary)
    assert min(alike(first, labels), alike(second, told)) > 1.5 * CHANCE
    assert max(alike(first, told), alike(second, labels)) < CHANCE
    assert alike(answers(by_labels)[1], told) < CHANCE


def test_two_class_tokens_are_more_alike_than_class_and_distillation_token(
    by_labels: Run, distilled: Run
) -> None:
    """DeiT, section 4: a cosine of 0.999 against 0.93."""
    cosine, control = distilled.curve[-1].token_cosine, by_labels.curve[-1].token_cosine
    assert cosine is not None
    assert control is not None
    assert -1.0 <= cosine < control <= 1.0
    assert control > 0.995


def test_a_single_head_comes_nearer_to_its_teacher_than_by_labels_alone(
    subset: SearchData, contrary: str
) -> None:
    recipes = [Recipe(teacher=contrary, distillation=kind, alpha=0.8) for kind in ("hard", "soft")]
    options: dict[str, Any] = {"model": "vit", "switches": TINY, "rungs": (1_600,)}
    runs = [trained(subset, one, **options) for one in (Recipe(), *recipes)]
    told = taught(runs[0], contrary)
    by_labels, *by_teacher = (answers(run)[0] for run in runs)
    assert min(alike(one, told) for one in by_teacher) > alike(by_labels, told) + 0.2
    soft = recipes[1]
    assert all(
        distance(one, told, soft) < 0.5 * distance(by_labels, told, soft) for one in by_teacher
    )


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_alpha_0_is_no_teacher(subset: SearchData, teacher: str, kind: Any) -> None:
    runs, curves = [], []
    for recipe in (Recipe(), Recipe(teacher=teacher, distillation=kind, alpha=0.0)):
        runs.append(new_run(subset, model="vitbn", switches=DROPOUT, recipe=recipe))
        curves.append([untimed(event) for event in train(runs[-1])])
    assert curves[0] == curves[1]
    torch.testing.assert_close(
        runs[0].model.state_dict(), runs[1].model.state_dict(), rtol=0.0, atol=0.0
    )


def drawn() -> tuple[Tensor, Tensor]:
    """Logits of a student, with a gradient, and of its teacher: (5, 7) each."""
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    return both[0].requires_grad_(), 2 * both[1]


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_the_gradient_of_soft_distillation(tau: float) -> None:
    logits, told = drawn()
    distance(logits, told, Recipe(distillation="soft", tau=tau)).backward()
    expected = tau * ((logits / tau).softmax(1) - (told / tau).softmax(1)) / 5
    torch.testing.assert_close(logits.grad, expected.detach())


def test_at_a_high_temperature_logits_are_matched() -> None:
    """Hinton et al. 2015, equation 4: there the gradient is that of squared differences."""
    logits, told = drawn()
    distance(logits, told, Recipe(distillation="soft", tau=1e3)).backward()
    centred = [each - each.mean(1, keepdim=True) for each in (logits.detach(), told)]
    torch.testing.assert_close(
        logits.grad, (centred[0] - centred[1]) / (5 * 7), rtol=0.0, atol=1e-3
    )


def test_the_gradient_of_hard_distillation_knows_the_teachers_class_alone() -> None:
    logits, told = drawn()
    distance(logits, told, Recipe(distillation="hard", tau=9.0)).backward()
    expected = (logits.softmax(1) - F.one_hot(told.argmax(1), 7)) / 5
    torch.testing.assert_close(logits.grad, expected.detach())


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("model", [TWO_HEADS, "deit_tiny"])
def test_timms_tasks_give_the_same_loss(
    subset: SearchData, teacher: str, kind: Any, model: str
) -> None:
    if model == "deit_tiny" and kind == "hard":
        return  # timm has no such task
    recipe = Recipe(teacher=teacher, distillation=kind, alpha=0.3, tau=2.0)
    run = student(subset, recipe, model=model)
    student_model: Any = run.model
    student_model.pretrained_cfg = {"mean": (0.0,), "std": (1.0,)}
    given: Any = load_teacher(teacher).model
    given.pretrained_cfg = student_model.pretrained_cfg
    options: dict[str, Any] = {"task_loss_weight": 0.7, "temperature": 2.0, "verbose": False}
    task = timm_module("task")
    if model == TWO_HEADS:
        theirs = task.TokenDistillationTask(run.model, given, nn.CrossEntropyLoss(), **options)
        theirs.distill_type = kind
    else:
        theirs = task.LogitDistillationTask(run.model, given, nn.CrossEntropyLoss(), **options)
    batch = subset.train.first(30)
    pixels, labels = batch.all_pixels(), batch.labels
    torch.testing.assert_close(run.loss(pixels, labels), theirs(pixels, labels)["loss"])


def test_without_a_teacher_both_heads_learn_from_the_labels(
    subset: SearchData, by_labels: Run
) -> None:
    first, second = answers(by_labels)
    labels = subset.validation.labels
    assert min(alike(first, labels), alike(second, labels)) > 1.5 * CHANCE
    assert alike((first + second) / 2, labels) == pytest.approx(by_labels.curve[-1].val_accuracy)


def test_the_loss_of_two_heads_is_the_mean_of_theirs(subset: SearchData) -> None:
    run = student(subset, Recipe(label_smoothing=0.1))
    batch = subset.train.first(20)
    before = [head.weight.clone() for head in heads(run)]
    loss = run.loss(batch.all_pixels(), batch.labels)
    model: Any = run.model
    each = [F.cross_entropy(one, batch.labels, label_smoothing=0.1) for one in model(
        batch.all_pixels())]  # fmt: skip
    torch.testing.assert_close(loss, (each[0] + each[1]) / 2)
    list(train(run))
    assert not any(
        torch.equal(old, head.weight) for old, head in zip(before, heads(run), strict=True)
    )


def test_a_linear_probe_trains_both_heads_and_nothing_else(
    subset: SearchData, teacher: str
) -> None:
    for recipe in (
        Recipe(train="head"),
        Recipe(train="head", teacher=teacher, distillation="hard"),
    ):
        run = student(subset, recipe)
        before = {key: value.clone() for key, value in run.model.state_dict().items()}
        list(train(run))
        after = run.model.state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed == {
            f"{head}.{part}" for head in ("head", "head_dist") for part in ("weight", "bias")
        }


def test_the_cosine_is_taken_behind_the_final_norm(subset: SearchData) -> None:
    run = student(subset, Recipe())
    seen: list[Tensor] = []
    model: Any = run.model
    hook = model.norm.register_forward_hook(lambda *told: seen.append(told[-1]))
    found = token_cosine(run.model, subset.validation, 50)  # in two batches, the last smaller
    hook.remove()
    tokens = torch.cat(seen)
    products = (tokens[:, 0] * tokens[:, 1]).sum(1)
    lengths = tokens[:, 0].norm(dim=1) * tokens[:, 1].norm(dim=1)
    assert found == pytest.approx(float((products / lengths).mean()), abs=1e-5)
    assert run.model.training


def test_one_token_has_no_cosine(subset: SearchData) -> None:
    assert rungs(train(new_run(subset)))[-1].token_cosine is None


def test_a_teacher_never_changes(
    subset: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(subset)  # with BatchNorm
    list(train(run))
    path = tmp_path / "teacher.safetensors"
    card.save(path, run.weights(), run.card)
    loaded: list[Teacher] = []

    def remembered(*given: Any) -> Teacher:
        loaded.append(load_teacher(*given))
        return loaded[-1]

    monkeypatch.setattr("objectives.distillation.kept_teacher", remembered)
    list(train(new_run(subset, recipe=Recipe(teacher=str(path), distillation="soft"))))
    (found,) = loaded
    torch.testing.assert_close(
        found.model.state_dict(), load_teacher(str(path)).model.state_dict(), rtol=0.0, atol=0.0
    )
    assert not any(module.training for module in found.model.modules())
    assert all(one.grad is None and not one.requires_grad for one in found.model.parameters())


class Seen(nn.Module):
    """A teacher that keeps what it is shown."""

    def forward(self, pixels: Tensor) -> Tensor:
        self.pixels = pixels
        return pixels.flatten(1)[:, :10]


def shown(mean: Any, std: Any) -> tuple[Seen, Teacher]:
    """Such a teacher, of MNIST, with a scale of its own."""
    model = Seen()
    return model, Teacher(model, "", 10, 1, 28, mean, std)


def test_the_teacher_sees_the_students_images_in_its_own_scale(subset: SearchData) -> None:
    scale = (torch.tensor([[[0.3]]]), torch.tensor([[[0.2]]]))
    standard = replace(subset.train.first(6), mean=scale[0], std=scale[1])
    plain = as_pixels(standard.images)
    for split, mean, std, expected in (
        (standard, None, None, plain),
        (standard, (0.1,), (0.5,), (plain - 0.1) / 0.5),
        (subset.train.first(6), (0.1,), (0.5,), (plain - 0.1) / 0.5),
    ):
        model, told = shown(mean, std)
        taught_by(told, split)(split.all_pixels())
        torch.testing.assert_close(model.pixels, expected, rtol=1e-5, atol=1e-5)
    model, told = shown(*(tuple(one.flatten().tolist()) for one in scale))
    pixels = standard.all_pixels()
    taught_by(told, standard)(pixels)
    assert model.pixels is pixels


MIXED = Recipe(mixup=0.8, cutmix=1.0, flip=0.5, label_smoothing=0.1)


def test_the_teacher_is_asked_of_mixed_images(
    subset: SearchData, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(mixup=0.8, teacher=teacher, distillation="hard")
    seen, told = shown(None, None)
    monkeypatch.setattr("objectives.distillation.kept_teacher", lambda *_: told)
    run = student(subset, recipe, rungs=(20,))
    mine: list[Tensor] = []
    hook = run.model.register_forward_pre_hook(lambda _, given: mine.append(given[0]))
    (metrics,) = rungs(train(run))
    hook.remove()
    assert torch.equal(seen.pixels, mine[0])
    assert not set(mine[0].unique().tolist()) <= set(as_pixels(torch.arange(256)).tolist())
    assert metrics.train_loss > 0


def through_a_file(run: Run) -> dict[str, Any]:
    """The run's state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(run.state_dict(), file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def test_a_restored_run_goes_on_bit_for_bit(subset: SearchData, teacher: str) -> None:
    recipe = replace(MIXED, teacher=teacher, distillation="soft", ema=0.9, accumulate=2)
    switches = replace(SMALL, dropout=0.1, drop_path=0.1)
    changes: dict[str, Any] = {"switches": switches, "rungs": (60, 200)}
    whole = student(subset, recipe, **changes)
    expected = [untimed(event) for event in train(whole)]
    first = student(subset, recipe, **changes)
    pauses = (
        event
        for event in train(first, lambda: first.images_seen == 120)
        if isinstance(event, Pause)
    )
    next(pauses)
    state = through_a_file(first)
    torch.manual_seed(99)
    second = student(subset, recipe, **changes)
    second.load_state_dict(state)
    rest = [untimed(event) for event in train(second)]
    assert [*map(untimed, second.curve[:1]), *rest] == expected
    torch.testing.assert_close(
        second.model.state_dict(), whole.model.state_dict(), rtol=0.0, atol=0.0
    )


def test_a_teacher_is_asked_in_half_precision_too(subset: SearchData, teacher: str) -> None:
    recipe = Recipe(teacher=teacher, distillation="soft")
    batch = subset.train.first(20)
    losses = [
        student(subset, recipe, precision=precision).loss(batch.all_pixels(), batch.labels).item()
        for precision in ("float32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[0] != losses[1]


def test_a_step_with_a_teacher_is_neither_compiled_nor_recorded() -> None:
    wanted = Execution(compiled=True)
    taught = Recipe(teacher="timm:any", distillation="hard")
    assert not possible(wanted, nn.Linear(1, 1), CPU, taught).compiled


def test_a_teacher_may_lie_in_a_checkpoint(subset: SearchData, tmp_path: Path) -> None:
    run = new_run(subset, model="vit")
    torch.save(run.state_dict(), tmp_path / "checkpoint.pt")
    pixels = subset.validation.all_pixels()
    found = load_teacher(str(tmp_path / "checkpoint.pt"))
    with torch.no_grad():
        torch.testing.assert_close(found.model(pixels), run.model.eval()(pixels))


def other(data: SearchData, **changes: int) -> SearchData:
    return replace(data, shape=replace(data.shape, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 7}, "the teacher is for 10 classes, the data have 7; give a teacher of"),
        ({"channels": 3}, "the teacher is for 1 channels, the data have 3"),
        ({"size": 56}, "the teacher is for 28 pixels along each side, the data have 56"),
    ],
)
def test_a_teacher_of_other_data_is_refused(
    subset: SearchData, teacher: str, changes: dict[str, int], message: str
) -> None:
    run = new_run(subset)
    config = replace(run.config, recipe=Recipe(teacher=teacher, distillation="hard"))
    with pytest.raises(InputError, match=message) as refused:
        training_loss(run.model, config, other(subset, **changes))
    assert "\n" not in str(refused.value)
