"""Processes that train one run together, each on its share of every batch.

All make the same steps in the same order. The first of them is the one that decides: it judges,
it is asked for pauses, it stops; the others follow. What they tell each other beside tensors of
the model goes through a group of its own on the CPU, `control`, so that no word is mistaken for a
gradient, and a process that fails between two of the model's collectives can still say so.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from models.errors import BnvitError, first_line
from objectives.errors import MateError, MateFailedError, TeamLostError
from objectives.order import mixed_seed

T = TypeVar("T")

_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl"}  # by the type of the device; others: gloo
_WELL, _KNOWN, _UNKNOWN = range(3)  # how a process fares: a known error, any other


@dataclass(frozen=True)
class Alone:
    """One process that trains by itself: the same calls, and nobody else is there."""

    rank: int = 0
    size: int = 1

    def shard(self, batch: Tensor) -> Tensor:
        """This process's part of the images or labels (B, …) of a batch."""
        return batch

    def draw_apart(self, seed: int, step: int) -> None:
        """Let dropout draw other masks in each process, at a run's `step` numbered from 0."""

    def together(self, work: Callable[[], T]) -> T:
        """What `work` makes here, once all have done theirs; an error of one is one of all."""
        return work()

    def decided(self, work: Callable[[], bool]) -> bool:
        """What `work` says in the first process, once all have done it; errors as in `together`."""
        return work()

    def shared(self, make: Callable[[], T]) -> T:
        """What `make` makes in the first process, alone, told to all; so is its error."""
        return make()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in each."""

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a detached `value` over all processes."""
        return value

    def lockstep(self, events: Generator[T]) -> Generator[T]:
        """The events of a run; once the first process wants no more, no other gets one."""
        return events


ALONE = Alone()


@dataclass(frozen=True)
class Team(Alone):
    """This process as one of several.

    Whatever is collective raises TeamLostError where another process is gone or silent. An error
    that another met is MateError, or MateFailedError where it is of no known kind.
    """

    control: Any = None  # a process group of gloo

    def shard(self, batch: Tensor) -> Tensor:
        """Every image whose number has this rank as remainder; sizes differ by one at most."""
        return batch[self.rank :: self.size]

    def draw_apart(self, seed: int, step: int) -> None:
        """Seed the others anew by rank and step, so that a run that is resumed draws the same."""
        if self.rank > 0:
            torch.manual_seed(mixed_seed(mixed_seed(seed, self.rank), step))

    def together(self, work: Callable[[], T]) -> T:
        """What `work` makes here, once all have done theirs; an error of one is one of all."""
        return self._jointly(work)[0]

    def decided(self, work: Callable[[], bool]) -> bool:
        """What `work` says in the first process, once all have done it; errors as in `together`."""
        return self._jointly(work)[1]

    def shared(self, make: Callable[[], T]) -> T:
        """What `make` makes in the first process, alone, told to all; so is its error."""
        made = self.together(make) if self.rank == 0 else self.together(lambda: None)
        told: list[Any] = [made]
        with _others_there():
            distributed.broadcast_object_list(told, src=0, group=self.control)
        return told[0]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in each: one message for all parameters."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _others_there():
            distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a detached `value` over all processes."""
        whole = value.clone()
        with _others_there():
            distributed.all_reduce(whole)
        return whole

    def lockstep(self, events: Generator[T]) -> Generator[T]:
        """The events of a run; once the first process wants no more, no other gets one.

        The caller closes this generator where it leaves early: then the others are told.
        """
        for event in events:
            is_over = True
            try:
                yield event
                is_over = False
            finally:
                # A follower that leaves by itself is gone; the first tells why it leaves.
                if self.rank == 0:
                    self.shared(lambda is_over=is_over: is_over)  # type: ignore[misc]
            if self.rank > 0 and self.shared(lambda: True):
                return

    def _jointly(self, work: Callable[[], T]) -> tuple[T, bool]:
        """What `work` makes here, and whether it is true in the first process."""
        try:
            made = work()
        except TeamLostError:
            raise
        except Exception as error:
            self._compare(error, False)
            raise
        return made, self._compare(None, self.rank == 0 and made is True)

    def _compare(self, error: Exception | None, is_decided: bool) -> bool:
        """Learn how all fare, in one message: whether the first process has decided so.

        Raises what another met, where this process met nothing.
        """
        kind = _WELL if error is None else _KNOWN if isinstance(error, BnvitError) else _UNKNOWN
        both = torch.tensor((kind, is_decided), dtype=torch.int64)
        with _others_there():
            distributed.all_reduce(both, distributed.ReduceOp.MAX, group=self.control)
        worst, answer = both.tolist()
        if worst == _WELL:
            return bool(answer)
        told: list[Any] = [None] * self.size
        own = None if error is None else f"{type(error).__name__}: {first_line(str(error))}"
        with _others_there():
            distributed.all_gather_object(told, own, group=self.control)
        if error is None:
            rank, reason = next((rank, text) for rank, text in enumerate(told) if text)
            met = MateError if worst == _KNOWN else MateFailedError
            raise met(f"process {rank} of {self.size}: {reason}")
        return False


@contextmanager
def _others_there() -> Iterator[None]:
    """Within this context an error of a collective says that a process is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise TeamLostError(
            "another process of this worker is gone or silent; start the worker again "
            f"({first_line(str(error))})"
        ) from error


@contextmanager
def team_of(rank: int, size: int, device: torch.device, timeout_s: float) -> Iterator[Team]:
    """The team of `size` processes that find each other by MASTER_ADDR and MASTER_PORT.

    A collective that waits for another process for longer than `timeout_s` fails.
    """
    timeout = timedelta(seconds=timeout_s)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL's buffers go there
    backend = _BACKENDS.get(device.type, "gloo")
    with _others_there():
        distributed.init_process_group(backend, rank=rank, world_size=size, timeout=timeout)
    try:
        with _others_there():
            control = distributed.new_group(backend="gloo", timeout=timeout)
        yield Team(rank, size, control)
    finally:
        distributed.destroy_process_group()
