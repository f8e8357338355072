"""Averages of weights: exact, on statistics of their own, kept only where they are better."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.errors import InputError
from models.unified_norm import UnifiedNorm, second_moment
from objectives.card import Card
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.run import Run
from objectives.soup import (
    Judge,
    Member,
    Soup,
    State,
    averaged,
    greedy_soup,
    uniform_soup,
)
from objectives.soup_members import check_members, common_initialisation
from objectives.training import train
from tests.objectives.tiny import new_run

IMAGES = 3_000  # after which the tiny model is right three times in four


def trained(data: SearchData, seed: int, lr: float = 5e-3) -> Run:
    run = new_run(data, seed=seed, lr=lr, rungs=(IMAGES,))
    list(train(run))
    return run


@pytest.fixture(scope="module")
def run(subset: SearchData) -> Run:
    return trained(subset, seed=0)


@pytest.fixture(scope="module")
def stranger(subset: SearchData) -> Run:
    """As good, from another initialisation."""
    return trained(subset, seed=1)


@pytest.fixture(scope="module")
def judge(run: Run, subset: SearchData) -> Judge:
    return Judge(run.card.build(), run.recalibration_pixels, subset.validation)


@pytest.fixture(scope="module")
def best(run: Run, judge: Judge) -> Member:
    return judge.member("best", run.weights())


def moved(state: State, by: float) -> dict[str, Tensor]:
    """Weights that lie off `state` in a fixed direction; in the middle of ±`by` it lies itself."""
    draw = torch.Generator().manual_seed(0)
    return {
        key: value + by * torch.randn(value.shape, generator=draw) * value.std()
        if key.endswith("weight") and value.dim() == 2
        else value
        for key, value in state.items()
    }


def names(members: Sequence[Member]) -> list[str]:
    return [one.name for one in members]


def parameters(state: State) -> dict[str, Tensor]:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in state.items() if not key.endswith(buffers)}


def test_a_member_is_judged_as_it_was_in_training(run: Run, best: Member) -> None:
    assert best.val_accuracy == run.curve[-1].val_accuracy > 0.6


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_average_of_equal_members_is_the_member(best: Member, count: int) -> None:
    for key, value in averaged([best.state] * count).items():
        assert value.dtype == best.state[key].dtype
        assert torch.equal(value, best.state[key]), key


def test_a_uniform_soup_is_the_average_by_hand(run: Run, best: Member, judge: Judge) -> None:
    others = [judge.member(f"{by}", moved(best.state, by)) for by in (0.1, 0.3)]
    soup = uniform_soup(judge, [best, *others])
    assert sorted(names(soup.members)) == ["0.1", "0.3", "best"]
    assert all(step.is_kept for step in soup.steps)
    for key, value in parameters(soup.state).items():
        by_hand = sum(one.state[key].numpy().astype("float64") for one in (best, *others)) / 3
        assert torch.equal(value, torch.from_numpy(by_hand).float()), key
    model = run.card.build()
    model.load_state_dict(soup.state)
    assert evaluate(model, judge.split, 83).accuracy == soup.val_accuracy


def test_statistics_are_those_of_the_average_not_the_average_of_statistics(
    run: Run, best: Member, stranger: Run, judge: Judge
) -> None:
    other = judge.member("other", stranger.weights())
    soup = uniform_soup(judge, [best, other])
    averages = averaged([best.state, other.state])
    model = run.card.build().eval()
    model.load_state_dict(soup.state)
    norms = [(n, one) for n, one in model.named_modules() if isinstance(one, nn.BatchNorm1d)]
    inputs: list[Tensor] = []
    for _, norm in norms:
        norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(run.recalibration_pixels)
    assert len(norms) == len(inputs) == 7
    for number, ((name, _), values) in enumerate(zip(norms, inputs, strict=True)):
        found, average = (state[f"{name}.running_var"] for state in (soup.state, averages))
        torch.testing.assert_close(found, values.var(dim=0), rtol=2e-3, atol=1e-5)
        # The first sees the images alone, whatever the weights.
        assert torch.allclose(found, average, rtol=0.1, atol=1e-4) == (number == 0)


def test_unified_norms_get_the_moments_of_the_average(subset: SearchData) -> None:
    run = new_run(subset, model="vit_un", rungs=(400,))
    list(train(run))
    judge = Judge(run.card.build(), run.recalibration_pixels, subset.validation)
    members = [judge.member(f"{by}", moved(run.weights(), by)) for by in (0.5, -1.0)]
    soup = uniform_soup(judge, members)
    model = run.card.build().eval()
    model.load_state_dict(soup.state)
    path, norm = [pair for pair in model.named_modules() if isinstance(pair[1], UnifiedNorm)][-1]
    inputs: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        model(run.recalibration_pixels)
    found, average = (
        state[f"{path}.running_moment"]
        for state in (soup.state, averaged([one.state for one in members]))
    )
    torch.testing.assert_close(found, second_moment(inputs[0]), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(found, average, rtol=0.05)


def test_different_initialisations_average_to_about_chance(
    best: Member, stranger: Run, judge: Judge
) -> None:
    other = judge.member("other", stranger.weights())
    soup = uniform_soup(judge, [best, other])
    assert min(best.val_accuracy, other.val_accuracy) > 0.6
    assert soup.val_accuracy < 0.3


def test_a_greedy_soup_keeps_what_makes_it_strictly_better(best: Member, judge: Judge) -> None:
    either = [judge.member(name, moved(best.state, by)) for name, by in (("+", 0.9), ("-", -0.9))]
    bad = judge.member("bad", moved(best.state, 30.0))
    found: Soup = greedy_soup(judge, [bad, *either])
    assert sorted(names(found.members)) == ["+", "-"]
    assert found.val_accuracy == best.val_accuracy > max(one.val_accuracy for one in either)
    assert [step.name for step in found.steps][-1] == "bad"
    assert [step.is_kept for step in found.steps] == [True, True, False]
    soups = [step.soup_accuracy for step in found.steps]
    assert soups[1] == found.val_accuracy
    assert soups[2] is not None
    assert soups[2] <= found.val_accuracy


def test_a_greedy_soup_leaves_out_what_changes_nothing(best: Member, judge: Judge) -> None:
    found = greedy_soup(judge, [best, replace(best, name="twin")])
    assert names(found.members) == ["best"]
    assert found.steps[1].soup_accuracy == found.val_accuracy
    assert found.state is best.state


def test_counts_of_steps_are_not_averaged() -> None:
    states = [{"steps": torch.tensor(n), "w": torch.tensor([float(n)])} for n in (4, 7)]
    found = averaged(states)
    assert int(found["steps"]) == 4
    assert float(found["w"]) == 5.5


def test_half_precision_is_averaged_exactly_and_rounded_once() -> None:
    values = [1.0, 1.0078125, 1.0078125]  # neighbours in bfloat16, whose sums it cannot hold
    found = averaged([{"w": torch.tensor([value], dtype=torch.bfloat16)} for value in values])
    assert found["w"].dtype == torch.bfloat16
    assert float(found["w"]) == 1.0078125


def test_between_positions_of_a_schedule_there_is_no_average() -> None:
    same = [{"norm.lam": torch.tensor(0.0), "w": torch.tensor([w])} for w in (1.0, 3.0)]
    assert float(averaged(same)["norm.lam"]) == 0.0
    with pytest.raises(InputError, match=r"different λ of PRepBN.*trained to the end"):
        averaged([same[0], {**same[1], "norm.lam": torch.tensor(0.5)}])


def of(card: Card, **switches: int | float) -> Card:
    return replace(card, switches={**card.switches, **switches})


def test_members_of_one_architecture_and_beginning_go_together(run: Run) -> None:
    card = run.card
    cards = {"a": card, "b": of(card, dropout=0.3, bn_momentum=0.01)}
    check_members(cards, any_initialisation=False)
    assert common_initialisation(cards) == "random weights of seed 0"


def test_other_architectures_are_refused_naming_what_differs(run: Run) -> None:
    card = run.card
    for other, told in (
        (of(card, dim=32), "dim is 32, not 16"),
        (replace(card, model="vit"), "model is vit, not vitbn"),
        (replace(card, image=replace(card.image, classes=7)), "classes is 7, not 10"),
        (replace(card, mean=(0.5,), std=(0.2,)), r"mean is \(0.5,\), not None"),
        (replace(card, precision="bf16"), "precision is bf16, not float32"),
    ):
        with pytest.raises(InputError, match=f"a soup of different architectures.*{told}"):
            check_members({"a": card, "b": other}, any_initialisation=True)


def test_other_beginnings_are_refused_with_the_reason_unless_asked(run: Run, stranger: Run) -> None:
    known, other = run.card, stranger.card
    unknown = replace(known, initialisation=None)
    refused = (
        (other, "b began with random weights of seed 1, a with random weights of seed 0: .*basin"),
        (unknown, "what b began with is not known: .*at chance"),
    )
    for card, told in refused:
        cards = {"a": known, "b": card}
        with pytest.raises(InputError, match=f"{told}.*--any-initialisation") as error:
            check_members(cards, any_initialisation=False)
        assert "\n" not in str(error.value)
        check_members(cards, any_initialisation=True)
        assert common_initialisation(cards) is None


def test_folded_models_and_single_ones_are_refused(run: Run) -> None:
    folded = replace(run.card, folded=True)
    with pytest.raises(InputError, match="the norms of b are folded"):
        check_members({"a": run.card, "b": folded}, any_initialisation=True)
    with pytest.raises(InputError, match="at least 2 members"):
        check_members({"a": run.card}, any_initialisation=True)


def test_what_a_run_begins_with_is_told(run: Run) -> None:
    from objectives.recipe import InitialWeights

    def began(**changes: object) -> str | None:
        return replace(run.config, **changes).initialisation  # type: ignore[arg-type]

    drawn = replace(run.config.recipe, init="trunc_normal")
    assert began(seed=3) == "random weights of seed 3"
    assert began(recipe=drawn) == "random weights of seed 0, trunc_normal"
    weights = InitialWeights("w.safetensors", "abc")
    assert began(initial=weights) == began(initial=weights, seed=5) == "weights abc"
    headless = replace(weights, new_head=True)
    assert began(initial=headless) != began(initial=headless, seed=5)
    assert began(initial=replace(weights, convert=True)) != began(initial=weights)
    assert began(initial=replace(weights, checksum=None)) is None
