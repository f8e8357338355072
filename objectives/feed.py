"""Batches of a split, brought to the device before they are wanted."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from objectives.augmentation import AS_THEY_ARE, Augmentation, NoAugmentation
from objectives.images import Split

AHEAD = 4  # batches that wait, gathered, while a step is computed

Selection = Tensor | slice
Batch = tuple[Tensor, Tensor]  # pixels (B, channels, size, size) and labels (B,)


def feed(
    split: Split,
    order: Iterable[Selection],
    augmentation: Augmentation | NoAugmentation = AS_THEY_ARE,
) -> Iterator[Batch]:
    """The batches that `order` selects, as the model takes them, on the split's device.

    Where the images do not lie there, one thread gathers and sends a few batches ahead.
    """
    for images, labels in _gathered(split, order):
        yield augmentation.batch(split.pixels(augmentation.change(images)), labels)


def _gathered(split: Split, order: Iterable[Selection]) -> Iterator[Batch]:
    if not split.is_loaded:
        return _ahead(split, iter(order))
    return ((split.images[selection], split.labels[selection]) for selection in order)


def _ahead(split: Split, order: Iterator[Selection]) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque()
        for selection in order:
            waiting.append(pool.submit(_gather, split, selection))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _gather(split: Split, selection: Selection) -> Batch:
    images, labels = split.images[selection], split.labels[selection]
    if split.device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    device = split.device
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def in_order(count: int, batch_size: int) -> Iterator[slice]:
    """Selections of `count` images, one batch after another; the last may be smaller."""
    return (slice(start, start + batch_size) for start in range(0, count, batch_size))
