"""What an inspection found, in tables by depth."""

from statistics import fmean

from rich.table import Table

from objectives.activations import Inspection
from study.tables import plain_table

BETWEEN = ("between channels", "without extreme", "in an image")  # shares of the variance
TITLES = {"LayerNorm": "LayerNorm", "TokenBatchNorm": "BatchNorm"}  # of classes of norms


def norms_table(found: Inspection) -> Table:
    """A row for each norm: what comes out of it."""
    table = plain_table("norm", "kind")
    for heading in ("mean", "variance", "lowest", "highest", "extreme", *BETWEEN):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in found.layers:
        one = layer.output
        table.add_row(
            layer.path,
            TITLES.get(layer.norm, layer.norm),
            f"{one.mean:.3f}",
            f"{one.variance:.3g}",
            f"{one.lowest:.3g}",
            f"{one.highest:.3g}",
            f"{len(one.extreme_channels)} of {one.channels}",
            f"{one.between:.1%}",
            f"{one.between_others:.1%}",
            f"{one.between_in_image:.1%}",
        )
    return table


def blocks_table(found: Inspection) -> Table:
    """A row for each block: its branches, its attention, its activation."""
    table = plain_table("block")
    for heading in ("attention", "cosine", "MLP", "cosine", "entropy", "at 0 or less", "at 6"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = zip(found.blocks, found.attention, found.activations, strict=True)
    for block, attention, activation in rows:
        table.add_row(
            block.path,
            f"{block.attention.relative:.3g}",
            f"{block.attention.cosine:.3f}",
            f"{block.feed_forward.relative:.3g}",
            f"{block.feed_forward.cosine:.3f}",
            f"{fmean(attention.heads):.3f}",
            f"{activation.off:.1%}",
            "" if activation.full is None else f"{activation.full:.2%}",
        )
    return table
