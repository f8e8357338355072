"""The matrix products and attention of any step, recorded from it and then done alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_attention")  # in operations' names


class ProductRecorder(TorchDispatchMode):
    """Keeps each product of what runs within it, with its inputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Sequence[Any], Mapping[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run `func`, and remember it if it is a product."""
        del types
        kwargs = kwargs or {}
        name = func.name().partition("::")[2].partition(".")[0]
        if name.startswith(PRODUCTS[:-1]) or PRODUCTS[-1] in name:
            kept = tree_map_only(Tensor, Tensor.detach, (args, kwargs))
            self.calls.append((func, *kept))
        return func(*args, **kwargs)


def products_of(step: Callable[[], object]) -> Callable[[], None]:
    """What is left of `step`, which is done once, without all that is no product.

    The inputs of all products are kept, which takes as much memory as they do.
    """
    with ProductRecorder() as recorder:
        step()

    @torch.no_grad()
    def products() -> None:
        for func, args, kwargs in recorder.calls:
            func(*args, **kwargs)

    return products
