"""BatchNorm's population statistics over more images than one batch takes, by two estimators.

"exact" takes each norm's statistics under those of the norms before it, a pass over the images for
each. "one-pass" lets every norm normalise by each batch's own statistics, and pools these over the
batches: one pass, exact for the first norm, near it for the others. Either pools by the number of
rows (images · tokens), so that a smaller last batch counts as it should, and with the variance
between the batches' means, which `torch.optim.swa_utils.update_bn` leaves out.

Source: PreciseBN, Wu & Johnson 2021, arXiv 2105.07576, section 3.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from models.modes import modes_kept
from models.unified_norm import UnifiedNorm
from objectives.batch_stats import (
    averaging_norms,
    batch_statistics,
    statistics_kept,
    take_moments,
)
from objectives.feed import feed, in_order
from objectives.images import Split
from objectives.moments import Moments

Method = Literal["exact", "one-pass"]
METHODS: tuple[Method, ...] = ("exact", "one-pass")

Batches = Callable[[], Iterable[Tensor]]
"""The same batches of pixels (B, C, H, W), anew at each call."""

_Found = dict[str, Moments]  # by the paths of norms, in the order in which they are computed


@dataclass(frozen=True)
class Population:
    """Statistics for the norms of a model. Variances are unbiased, as torch keeps them."""

    buffers: Mapping[str, Tensor]  # by their names in the model's state

    def put_into(self, model: nn.Module) -> None:
        """Let the norms of `model` evaluate by these statistics."""
        for name, value in self.buffers.items():
            model.get_buffer(name).copy_(value)


def estimate(model: nn.Module, batches: Batches, method: Method = "exact") -> Population:
    """The statistics of all images of `batches` under the weights of `model`.

    Nothing of the model is changed, also where this is interrupted. Norms that a forward pass does
    not come by have none. The exact ones equal those of one batch with all the images, but for
    rounding.
    """
    with modes_kept(model), statistics_kept(model), torch.no_grad():
        model.eval()  # no dropout
        found = (_exact if method == "exact" else _one_pass)(model, batches)
    return Population(
        {name: each for path in found for name, each in _buffers(model, path, found[path]).items()}
    )


def estimate_on(model: nn.Module, split: Split, method: Method, batch_size: int) -> Population:
    """The same of the images of `split`, so many in a batch."""
    return estimate(model, partial(_pixels, split, batch_size), method)


@contextmanager
def on_population(model: nn.Module, population: Population) -> Iterator[None]:
    """Within this context the norms of `model` have these statistics."""
    with statistics_kept(model):
        population.put_into(model)
        yield


class _ReachedError(Exception):
    """The norm is reached whose input was wanted; the rest of the pass is not."""


def _exact(model: nn.Module, batches: Batches) -> _Found:
    found: _Found = {}
    for path in _order(model, next(iter(batches()))[:2]):
        norm = model.get_submodule(path)
        for pixels in batches():
            with _noting(path, norm, found, stop=True):
                model(pixels)
        # A batch is normalised by its biased variance, so the norms behind this one see that.
        assert isinstance(norm, nn.BatchNorm1d | UnifiedNorm)
        _set(norm, found[path], found[path].biased)
    return found


def _one_pass(model: nn.Module, batches: Batches) -> _Found:
    found: _Found = {}
    norms = averaging_norms(model)
    for pixels in batches():
        with (
            take_moments(norms),
            batch_statistics(model, len(pixels)),
            _noting_all(model, found),
        ):
            model(pixels)
    return found


def _order(model: nn.Module, pixels: Tensor) -> list[str]:
    """The paths of the norms, in the order in which a forward pass comes by them."""
    found: _Found = {}
    with _noting_all(model, found):
        model(pixels)
    return list(found)


def _paths(model: nn.Module) -> dict[str, nn.Module]:
    norms = set(averaging_norms(model))
    return {path: module for path, module in model.named_modules() if module in norms}


@contextmanager
def _noting_all(model: nn.Module, found: _Found) -> Iterator[None]:
    hooks = [
        norm.register_forward_pre_hook(partial(_note, path, found, False))
        for path, norm in _paths(model).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _noting(path: str, norm: nn.Module, found: _Found, stop: bool) -> Iterator[None]:
    hook = norm.register_forward_pre_hook(partial(_note, path, found, stop))
    try:
        yield
    except _ReachedError:
        pass
    finally:
        hook.remove()


def _note(path: str, found: _Found, stop: bool, _norm: nn.Module, inputs: tuple[Tensor]) -> None:
    moments = Moments.of(inputs[0])
    if path in found:
        found[path].add(moments)
    else:
        found[path] = moments
    if stop:
        raise _ReachedError


def _set(norm: nn.BatchNorm1d | UnifiedNorm, moments: Moments, variance: Tensor) -> None:
    if isinstance(norm, UnifiedNorm):
        norm.running_moment.copy_(moments.second)
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(variance)


def _buffers(model: nn.Module, path: str, moments: Moments) -> dict[str, Tensor]:
    if isinstance(model.get_submodule(path), UnifiedNorm):
        return {f"{path}.running_moment": moments.second}
    return {f"{path}.running_mean": moments.mean, f"{path}.running_var": moments.unbiased}


def _pixels(split: Split, batch_size: int) -> Iterator[Tensor]:
    return (pixels for pixels, _ in feed(split, in_order(len(split), batch_size)))
