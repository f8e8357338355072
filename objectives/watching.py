"""Functions called with what the submodules of a model are given and return."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Watcher = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], None]
"""Takes a module, its positional and its named arguments, and what it returned."""


@contextmanager
def watched(model: nn.Module, watchers: Iterable[tuple[str, Watcher]]) -> Iterator[None]:
    """Within this context each watcher is called after the submodule of its path was."""
    hooks = []
    try:
        for path, watcher in watchers:
            module = model.get_submodule(path)
            hooks.append(module.register_forward_hook(watcher, with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def tokens(stream: Tensor) -> Tensor:
    """A residual stream (B, N, C), or Swin's (B, H, W, C), as (B, N, C)."""
    return stream.flatten(1, -2)
