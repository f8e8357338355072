"""Charts of what the blocks do, the models side by side."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from objectives.activations import Inspection
from objectives.residual import BlockChange
from study.charts import Bars, Chart, Line, Mark, Panel, Picture
from study.inspect_norm_charts import BLOCK, Seen, numbers


def blocks_chart(seen: Seen) -> Chart:
    """Branches, attention and activations, by block."""
    size = [m for name, found in seen for m in _changes(name, found.blocks, "relative")]
    angle = [m for name, found in seen for m in _changes(name, found.blocks, "cosine")]
    entropy = [_entropy(name, found) for name, found in seen]
    flat = [mark for name, found in seen for mark in _flat(name, found)]
    return Chart(
        "blocks",
        "What the blocks do",
        (
            Panel("size of a branch, ‖branch(x)‖ / ‖x‖", BLOCK, "", tuple(size), log_y=True),
            Panel("cosine of x before and after it", BLOCK, "", tuple(angle)),
            Panel("entropy of attention", BLOCK, "of the largest possible", tuple(entropy)),
            Panel("units where the activation is flat", BLOCK, "", tuple(flat), percent_y=True),
        ),
        caption="x is the residual stream. Branches: attention solid, feed-forward dashed. "
        "Entropy: mean over heads, the band spans them. Flat: inputs at 0 or less solid, for ReLU6 "
        "at 6 or more dashed.",
    )


def _changes(name: str, blocks: Sequence[BlockChange], what: str) -> Iterable[Mark]:
    for part, is_dashed in (("attention", False), ("feed_forward", True)):
        values = tuple(getattr(getattr(block, part), what) for block in blocks)
        yield Line(name, numbers(len(values)), values, dashed=is_dashed)


def _entropy(name: str, found: Inspection) -> Mark:
    heads = [one.heads for one in found.attention]
    low, high = tuple(map(min, heads)), tuple(map(max, heads))
    return Line(name, numbers(len(heads)), tuple(map(fmean, heads)), low, high)


def _flat(name: str, found: Inspection) -> Iterable[Mark]:
    x = numbers(len(found.activations))
    yield Line(name, x, tuple(one.off for one in found.activations))
    full = tuple(one.full for one in found.activations)
    if any(value is not None for value in full):
        yield Line(name, x, full, dashed=True)


def injection_chart(seen: Seen) -> Chart:
    """How far an injected extreme carries, and what it costs."""
    carried: list[Mark] = []
    accuracy: list[Mark] = []
    factor = 0.0
    for name, found in seen:
        if (one := found.injection) is not None:
            factor = one.factor
            values = (one.at_entry, *one.after_blocks)
            carried.append(Line(name, tuple(map(float, range(len(values)))), values))
            both = (one.accuracy, one.accuracy_injected)
            accuracy.append(Bars(name, ("as it is", "injected"), both))
    return Chart(
        "injection",
        f"The channel of the largest extreme, multiplied by {factor:g} before the first block",
        (
            Panel("change of x, ‖x' - x‖ / ‖x‖", "after block", "", tuple(carried), log_y=True),
            Panel("accuracy", "", "", tuple(accuracy), percent_y=True, y_range=(0.0, 1.0)),
        ),
    )


def features_chart(name: str, found: Inspection, image: Picture) -> Chart:
    """Feature maps of one model beside the image that they are of."""
    panels = []
    for block in dict.fromkeys(one.block for one in found.maps):
        panels.append(Panel("image", "", "", (image,)))
        for one in found.maps:
            if one.block == block:
                title = f"block {block}, ch. {one.channel}"
                panels.append(Panel(title, "", "", (Picture(one.pixels),)))
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)
    return Chart(
        f"features-{stem}",
        f"Feature maps of {name}",
        tuple(panels),
        columns=5,
        caption="The residual stream after a block, patch by patch: the channels that vary most. "
        "Each from its least (black) to its greatest value (white).",
    )
