"""What an inspection found, in tables by depth and in sentences with numbers."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from rich.table import Table

from objectives.activations import Inspection
from objectives.channels import EXTREME, Spread
from objectives.layers import LayerActivations
from study.inspect_norm_charts import FEED_FORWARD, Seen
from study.tables import plain_table

BETWEEN = ("between channels", "without extreme", "in an image")  # shares of the variance
SMALL_MEAN = 0.1  # of the standard deviation
FEW = 0.05  # of the channels
CLOSE = 0.1  # of the variance between channels
LESS = 0.9  # of it in the deeper half, for what is more so with depth
IN_A_BLOCK = ("attention", *FEED_FORWARD)
TITLES = {"LayerNorm": "LayerNorm", "TokenBatchNorm": "BatchNorm"}


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


def observations(seen: Seen) -> list[str]:
    """Whether what the DeiT-BN blog observed holds here, and what else is worth a sentence."""
    return [line for name, found in seen for line in _of_one(name, found)] + _of_both(seen)


def _of_one(name: str, found: Inspection) -> Iterator[str]:
    layer_norms, batch_norms = (_block_norms(found, kind) for kind in TITLES)
    if layer_norms:
        yield f"{name}: {_few_hold_extremes(layer_norms)}"
        yield f"{name}: {_close_apart_from_extremes(layer_norms)}"
    if batch_norms:
        yield f"{name}: {_all_differ(batch_norms)}"
    yield f"{name}: {_larger_branch(found)}"
    full = [one.full for one in found.activations if one.full is not None]
    if full:
        off = [one.off for one in found.activations]
        yield (
            f"{name}: ReLU6 is at its limit of 6 for {median(full):.2%} of its inputs (at most "
            f"{max(full):.2%}) and at 0 for {median(off):.1%}"
        )
    if found.statistics:
        yield f"{name}: {_running(found)}"
    if (one := found.injection) is not None:
        yield (
            f"{name}: channel {one.channel} multiplied by {one.factor:g} changes the residual "
            f"stream by {one.at_entry:.1%} at the entrance and {one.after_blocks[-1]:.1%} behind "
            f"the last block, the logits by {one.logits:.1%}; accuracy {one.accuracy:.2%} becomes "
            f"{one.accuracy_injected:.2%}"
        )


def _few_hold_extremes(layers: Sequence[LayerActivations]) -> str:
    outputs = [layer.output for layer in layers]
    small = sum(abs(one.relative_mean) < SMALL_MEAN for one in outputs)
    with_few = [one for one in outputs if 0.0 < one.extreme_share <= FEW]
    holds = len(with_few) > len(outputs) / 2 and small > len(outputs) / 2
    most = max(len(one.extreme_channels) for one in outputs)
    return (
        f"LayerNorm outputs have small mean and large variance as a few channels hold extremes: "
        f"{_verdict(holds)}. The mean is below {SMALL_MEAN:g} standard deviations in {small} of "
        f"{len(outputs)} layers; 1 to {FEW:.0%} of the channels exceed {EXTREME:g} times the "
        f"median in {len(with_few)} (at most {most} channels do){_held(with_few)}"
    )


def _held(outputs: Sequence[Spread]) -> str:
    """What share of the variance the extreme channels have, where there are any."""
    shares = []
    for one in outputs:
        left = one.variance_of_others * (1.0 - one.extreme_share)
        shares.append(max(1.0 - left / one.variance, 0.0))
    return f" and hold {median(shares):.0%} of the variance there" if shares else ""


def _close_apart_from_extremes(layers: Sequence[LayerActivations]) -> str:
    shares = [layer.output.between_others for layer in layers]
    half = len(shares) // 2
    shallow, deep = median(shares[:half] or shares), median(shares[half:])
    holds = median(shares) < CLOSE and deep < LESS * shallow
    return (
        f"apart from extremes LayerNorm's channels are close to each other, more so with depth: "
        f"{_verdict(holds)}. {median(shares):.1%} of the variance lies between channels (median), "
        f"{shallow:.1%} in the shallower half and {deep:.1%} in the deeper"
    )


def _all_differ(layers: Sequence[LayerActivations]) -> str:
    outputs = [layer.output for layer in layers]
    small = sum(abs(one.relative_mean) < SMALL_MEAN for one in outputs)
    without = sum(not one.extreme_channels for one in outputs)
    shares, in_image = _between(layers)
    holds = min(small, without) > len(outputs) / 2 and in_image >= CLOSE
    return (
        f"BatchNorm outputs have small mean and large variance as all channels differ: "
        f"{_verdict(holds)}. The mean is below {SMALL_MEAN:g} standard deviations in {small} of "
        f"{len(outputs)} layers, {without} have no extreme channel, and {in_image:.1%} of the "
        f"variance within an image lies between channels, {shares:.1%} over all images (medians)"
    )


def _between(layers: Sequence[LayerActivations]) -> tuple[float, float]:
    """Shares of the variance between channels, over all images and within one; medians."""
    outputs = [layer.output for layer in layers]
    return median(one.between for one in outputs), median(one.between_in_image for one in outputs)


def _larger_branch(found: Inspection) -> str:
    attention = [block.attention.relative for block in found.blocks]
    mlp = [block.feed_forward.relative for block in found.blocks]
    larger = sum(m > a for a, m in zip(attention, mlp, strict=True))
    verdict = _verdict(larger > len(mlp) / 2)
    return (
        f"the MLP changes the features more than attention does: {verdict}. "
        f"It does in {larger} of {len(mlp)} blocks; median change {median(mlp):.2f} against "
        f"{median(attention):.2f} of the residual stream"
    )


def _running(found: Inspection) -> str:
    shifts = [one.mean_shift for one in found.statistics]
    ratios = [one.variance_ratio for one in found.statistics]
    return (
        f"running means are {median(shifts):.3f} standard deviations off those of the population "
        f"(median; at most {max(shifts):.3f}), running variances {min(ratios):.2f} to "
        f"{max(ratios):.2f} times them"
    )


def _of_both(seen: Seen) -> list[str]:
    """Of a model with LayerNorm in its blocks beside one that has BatchNorm there."""
    shares = {}
    for name, found in seen:
        for kind in TITLES:
            layers = _block_norms(found, kind)
            if len(layers) > len([one for one in found.layers if one.role in IN_A_BLOCK]) / 2:
                shares[kind] = name, *_between(layers)
    if set(shares) != set(TITLES):
        return []
    (one, layer, layer_in_image), (other, batch, batch_in_image) = (shares[k] for k in TITLES)
    return [
        f"BatchNorm makes the variance between channels larger than LayerNorm: "
        f"{_verdict(batch > layer)} over all images, {_verdict(batch_in_image > layer_in_image)} "
        f"within one. {batch:.1%} and {batch_in_image:.1%} of it lie between channels in {other}, "
        f"{layer:.1%} and {layer_in_image:.1%} in {one} (medians over the norms of the blocks)"
    ]


def _block_norms(found: Inspection, kind: str) -> list[LayerActivations]:
    return [one for one in found.layers if one.norm == kind and one.role in IN_A_BLOCK]


def _verdict(holds: bool) -> str:
    return "yes" if holds else "no"
