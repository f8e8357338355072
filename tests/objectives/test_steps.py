"""A step from a graph against the plain one, as far as it goes without CUDA."""

import copy

import pytest
import torch
from torch import Tensor

from objectives.data import SearchData
from objectives.errors import GraphError
from objectives.objective import is_out_of_memory
from objectives.run import Run
from objectives.steps import PLAIN_STEPS, GraphedStep, PlainStep, Work
from tests.objectives.tiny import DROPOUT, new_run

STEPS = PLAIN_STEPS + 4


class Again:
    """Stands in for CUDA graphs: does the work anew, its result and gradients at fixed places.

    Recording does no work that lasts, but leaves gradients where each replay will write them.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.aside_steps = self.recordings = 0

    def aside(self, work: Work) -> Tensor:
        self.aside_steps += 1
        return work()

    def record(self, work: Work) -> Work:
        self.recordings += 1
        saved = copy.deepcopy(self.run.state_dict())
        place = work().clone()
        self.run.load_state_dict(saved)
        gradients = [(p, p.grad) for p in self.run.model.parameters()]

        def replay() -> Tensor:
            place.copy_(work())
            for parameter, gradient in gradients:
                assert gradient is not None
                assert parameter.grad is not None
                gradient.copy_(parameter.grad)
                parameter.grad = None  # a graph writes there, and knows no parameter
            return place

        return replay


def taken(run: Run, step: "PlainStep | GraphedStep") -> list[float]:
    """Losses of some steps over the first training images; a rung between takes the gradients."""
    torch.manual_seed(1)  # of dropout
    images = run.data.train
    losses = []
    for index in range(STEPS):
        selection = slice(20 * index, 20 * (index + 1))
        batch = images.pixels(images.images[selection]), images.labels[selection]
        losses.append(step(*batch))
        if index == STEPS - 2:
            run.optimizer.zero_grad(set_to_none=True)
    return [float(loss) for loss in losses]


def test_replayed_steps_train_like_plain_ones(subset: SearchData) -> None:
    plain, graphed = (new_run(subset, switches=DROPOUT) for _ in range(2))
    expected = taken(plain, PlainStep(plain.loss, plain.optimizer))
    recorder = Again(graphed)
    found = taken(graphed, GraphedStep(PlainStep(graphed.loss, graphed.optimizer), recorder))
    assert found == expected
    assert len(set(found)) == STEPS, "each step's loss is its own, not where the last one lies"
    torch.testing.assert_close(
        graphed.model.state_dict(), plain.model.state_dict(), rtol=0.0, atol=0.0
    )
    for mine, theirs in zip(graphed.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0.0, atol=0.0)
    assert (recorder.aside_steps, recorder.recordings) == (PLAIN_STEPS, 1)


def test_the_step_reads_each_batch_and_not_the_first_again(subset: SearchData) -> None:
    run = new_run(subset)
    step = GraphedStep(PlainStep(run.loss, run.optimizer), Again(run))
    taken(run, step)
    last = subset.train.images[20 * (STEPS - 1) : 20 * STEPS]
    torch.testing.assert_close(step.pixels, subset.train.pixels(last))


class Refusing(Again):
    """As CUDA does where a step reads a value."""

    def __init__(self, run: Run, error: RuntimeError) -> None:
        super().__init__(run)
        self.error = error

    def record(self, work: Work) -> Work:  # noqa: ARG002  # as a recorder takes it
        raise self.error


def test_a_step_that_cannot_be_recorded_says_what_to_do(subset: SearchData) -> None:
    run = new_run(subset)
    refused = Refusing(run, RuntimeError("operation not permitted when stream is capturing"))
    with pytest.raises(GraphError, match=r"with --compile off .*not permitted"):
        taken(run, GraphedStep(PlainStep(run.loss, run.optimizer), refused))


def test_too_little_memory_for_a_graph_is_told_as_that(subset: SearchData) -> None:
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA out of memory")):
        run = new_run(subset)
        step = GraphedStep(PlainStep(run.loss, run.optimizer), Refusing(run, error))
        with pytest.raises(RuntimeError) as raised:
            taken(run, step)
        assert is_out_of_memory(raised.value)
