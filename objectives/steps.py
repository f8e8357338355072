"""One optimiser step: operation after operation, or as a whole from a CUDA graph.

Small models take longer to launch than to compute. A graph is launched as one piece; it reads its
batch from buffers of its own and writes where parameters, gradients and optimiser states lie. A run
has one batch size and one model, so it has one graph, which goes with it.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from objectives.errors import GraphError
from objectives.execution import Loss
from objectives.hardware import cuda_index
from objectives.team import ALONE, Alone

PLAIN_STEPS = 3  # before a graph is recorded: kernels are chosen, workspaces allocated


Work = Callable[[], Tensor]


class Recorder(Protocol):
    """Records work as a graph."""

    def aside(self, work: Work) -> Tensor:
        """Do `work` where it may be recorded later."""

    def record(self, work: Work) -> Work:
        """What `work` does, without doing it, as a function whose result lies at one place."""


class CudaRecorder:
    """Records CUDA graphs of `device`, on another stream than the usual as capture demands."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _side_stream(cuda_index(device))

    def aside(self, work: Work) -> Tensor:
        """Do `work` on the stream on which it will be captured."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return result

    def record(self, work: Work) -> Work:
        """Capture `work`, which must wait for nothing."""
        graph = torch.cuda.CUDAGraph()
        # "thread_local": the thread that gathers batches may copy to the device meanwhile.
        mode = "thread_local"
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode=mode),
        ):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Step(Protocol):
    """A step of training. The gradients stay until the next."""

    grad_norm: Tensor | None

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Train on pixels (B, C, H, W) and labels (B,); the detached loss ()."""


@cache
def _side_stream(index: int) -> torch.cuda.Stream:
    """One for all graphs of a device: with a stream of its own each graph left 65 MiB in use."""
    return torch.cuda.Stream(index)


class PlainStep:
    """Forward, backward and optimiser, one operation after another."""

    grad_norm: Tensor | None = None  # () of the last step, where it is no longer in the gradients

    def __init__(self, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
        self.loss = loss
        self.optimizer = optimizer

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(pixels, labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class RecipeStep(PlainStep):
    """The same by micro-batches and by a team, with a scaled loss and clipped gradients.

    Each micro-batch's loss counts by its images, so the gradient is that of the whole batch, but
    for BatchNorm, which takes the statistics of each micro-batch. Each process of a team takes
    its share of every micro-batch, of which there must be enough for all; loss and gradient are
    those of the whole batch in each.
    """

    def __init__(
        self,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        accumulate: int = 1,
        clip: float | None = None,
        team: Alone = ALONE,
    ) -> None:
        super().__init__(loss, optimizer)
        self.scaler = scaler
        self.accumulate = accumulate
        self.clip = clip
        self.team = team

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch."""
        self.optimizer.zero_grad(set_to_none=True)
        part = self.team.together(lambda: self._gradients(pixels, labels))
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.team.sum_gradients(trained)
        loss = self.team.summed(part)  # here, as what follows may fail in one process alone
        self.scaler.unscale_(self.optimizer)
        if self.clip is not None:
            self.grad_norm = nn.utils.clip_grad_norm_(trained, self.clip)
        self.scaler.step(self.optimizer)  # left out where a gradient is not finite
        self.scaler.update()
        return loss

    def _gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Compute this process's part of the gradients; its part of the loss ()."""
        pieces = (tensor.tensor_split(self.accumulate) for tensor in (pixels, labels))
        shards = ((self.team.shard(part) for part in pair) for pair in zip(*pieces, strict=True))
        losses = [self._accumulated(images, classes, len(pixels)) for images, classes in shards]
        return torch.stack(losses).sum()

    def _accumulated(self, pixels: Tensor, labels: Tensor, whole: int) -> Tensor:
        loss = self.loss(pixels, labels) * (len(pixels) / whole)
        self.scaler.scale(loss).backward()
        return loss.detach()


class GraphedStep:
    """Steps replayed from a graph, once a few have been taken plainly; all are steps of the run.

    Batches must have the shape of the first, and the optimiser must be `capturable`. Raises
    GraphError where the step cannot be recorded, as one that reads a value of the device.
    """

    grad_norm: Tensor | None = None

    def __init__(self, plain: PlainStep, recorder: Recorder) -> None:
        self.plain = plain
        self.recorder = recorder
        self.taken = 0
        self.replay: Work | None = None

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch."""
        if self.taken < PLAIN_STEPS:
            self.taken += 1
            return self.recorder.aside(lambda: self.plain(pixels, labels))
        if self.replay is None:
            self.replay = self._recorded(pixels, labels)
        self.pixels.copy_(pixels)
        self.labels.copy_(labels)
        loss = self.replay().clone()  # the next step writes where it lies
        for parameter, gradient in self.gradients:
            parameter.grad = gradient  # a rung takes them away
        return loss

    def _recorded(self, pixels: Tensor, labels: Tensor) -> Work:
        self.pixels, self.labels = pixels.clone(), labels.clone()
        try:
            replay = self.recorder.record(lambda: self.plain(self.pixels, self.labels))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise GraphError(
                "the training step cannot be recorded as a CUDA graph; with --compile off it is "
                f"computed operation by operation ({error})"
            ) from error
        groups = self.plain.optimizer.param_groups
        self.gradients = [(p, p.grad) for group in groups for p in group["params"]]
        return replay
