"""What an inspection found, in sentences with numbers."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from objectives.activations import Inspection
from objectives.channels import EXTREME, Spread
from objectives.layers import LayerActivations
from study.inspect_norm_charts import FEED_FORWARD, Seen
from study.inspect_tables import TITLES

SMALL_MEAN = 0.1  # of the standard deviation
FEW = 0.05  # of the channels
CLOSE = 0.1  # of the variance between channels
LESS = 0.9  # of it in the deeper half, for what is more so with depth
IN_A_BLOCK = ("attention", *FEED_FORWARD)


def observations(seen: Seen) -> list[str]:
    """Whether what the DeiT-BN blog observed holds here, and what else is worth a sentence."""
    lines = []
    for name, found in seen:
        broken = _not_finite(found)
        lines += list(_of_one(name, found)) if broken is None else [_diverged(name, broken)]
    return lines + _of_both([one for one in seen if _not_finite(one[1]) is None])


def _not_finite(found: Inspection) -> str | None:
    """Where values stop being numbers; None: nowhere."""
    layers = ((one.path, one.input.is_finite and one.output.is_finite) for one in found.layers)
    blocks = ((one.path, math.isfinite(one.feed_forward.relative)) for one in found.blocks)
    return next((path for path, is_finite in (*layers, *blocks) if not is_finite), None)


def _diverged(name: str, path: str) -> str:
    return f"{name}: values are no finite numbers at {path}: the model has diverged"


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
        f"{len(outputs)} layers; at least 1 and at most {FEW:.0%} of the channels exceed "
        f"{EXTREME:g} times the median in {len(with_few)} (at most {most} channels do)"
        f"{_held(with_few)}"
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
