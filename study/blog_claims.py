"""What the blog on DeiT and Swin with BatchNorm states, transcribed, and what judges it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from models.switches import ImageShape
from study.claims import Claim
from study.claims_counts import inference_judged, parameters_judged, shape_judged

IMAGE = ImageShape(3, 224, 1000)
BACKBONES = ("deit_tiny", "deit_base", "swin_tiny", "swin_base")  # of the inference table
SUFFIX = "_bn_wn_relu6"
GAIN = 0.12

_IMAGENET = "needs ImageNet and 300 epochs, GPU-days for each model"
_STABILITY = f"{_IMAGENET}; what divergence can be provoked on less is another experiment"
_LAB = "'bnvit-study inspect' looks into trained models; this command trains none of these"


@dataclass(frozen=True)
class Row:
    """A row of the blog's tables; None and "" where it is left empty."""

    model: str
    parameters: str  # millions
    accuracy: str = ""  # top-1 in per cent, or what became of it
    images_per_s: str = ""
    shape: tuple[int, int, int] | None = None  # dim, heads, depth
    is_unstable: bool = False


_B, _L = (768, 12, 12), (1024, 16, 12)
TRAINED = (
    Row("deit_tiny", "5", "72.56 % (published 72.2)", "2536.5", (192, 3, 12)),
    Row("deit_small", "22", "80.47 % (published 79.8)", "940.4", (384, 6, 12)),
    Row("deit_base", "86.6", "78.74 % (published 81.8)", "292.3", _B),
    Row("deit_large", "153.2", "77.83 %", "", _L),
    Row("deit_base_bn_relu6", "86.6", "79.26 %", "", _B),
    Row("deit_large_bn_relu6", "153.2", "NaN (epoch 35)", "", _L, is_unstable=True),
    Row("deit_base_bn_wn", "86.7", "78.77 %", "", _B),
    Row(
        "deit_large_bn_wn", "153.3", "NaN at epoch 12 with batch 128, trains with 32", "", _L, True
    ),
    Row("deit_base_bn_wn_relu6", "86.7", "80.25 %"),
    Row("deit_base_lnbn_wn", "86.7", "NaN (80.7 % at epoch 234)", is_unstable=True),
    Row("deit_base_lnbn_relu6", "86.7", "NaN (epoch 8)", is_unstable=True),
    Row("deit_base_lnbn_wn_relu6", "86.7", "NaN (77.65 % at epoch 172)", is_unstable=True),
    Row("swin_small_bn_wn_relu6", "49.7"),
    Row("swin_tiny_bn_wn_relu6", "28.3", "80.75 % (LN 81.3)"),
    Row("deit_tiny_lnbn_wn", "5.7", "69.87 %"),
    Row("deit_tiny_lnbn_wn_relu6", "5.7", "69.16 %"),
    Row("deit_small_lnbn_wn", "22.1", "78.76 %"),
    Row("deit_small_lnbn_wn_relu6", "22.1", "78.24 %"),
)
PLANNED = (
    *(Row(f"deit_tiny_{each}", "5.7") for each in ("bn_relu6", "bn_wn", "bn_wn_relu6")),
    *(Row(f"deit_small_{each}", "22.1") for each in ("bn_relu6", "bn_wn", "bn_wn_relu6")),
    *(Row(f"swin_tiny_{each}", "28.3") for each in ("bn_relu6", "bn_wn")),
    Row("swin_small_bn_relu6", "49.6"),
    Row("swin_small_bn_wn", "49.7"),
)
DETECTION = (
    ("top-1", "81.3 %"),
    ("top-5", "95.6 %"),
    ("COCO box AP", "50.5"),
    ("COCO mask AP", "43.5"),
    ("ADE20k mIoU", "46.1"),
)
STATEMENTS = (
    ("relu6-wn-stable", "ReLU6 and weight norm keep BatchNorm training stable", _STABILITY),
    ("relu6-gradient", "ReLU6 limits activations and zeroes their gradient there", _LAB),
    ("small-batch-stable", "a smaller batch makes BatchNorm training stabler", _STABILITY),
    ("as-accurate", "BatchNorm is about as accurate as LayerNorm", _IMAGENET),
    ("channel-variance", "BatchNorm makes the variance between channels large", _LAB),
    ("ln-extremes", "LayerNorm's outputs vary much because a few channels are extreme", _LAB),
    ("bn-variance", "BatchNorm's outputs vary much because all channels differ", _LAB),
    ("ln-channels", "apart from extremes LayerNorm's channels are alike, more with depth", _LAB),
    ("mlp-changes", "the feed-forward changes the features more than attention does", _LAB),
)


def blog_claims() -> tuple[Claim, ...]:
    """All claims, in the order of the blog."""
    return (*_inference(), *_rows(), *_detection(), *_statements())


def blog_models() -> tuple[str, ...]:
    """The models whose sizes it gives."""
    return tuple(row.model for row in (*TRAINED, *PLANNED))


def _inference() -> Iterator[Claim]:
    for backbone in BACKBONES:
        for folded, form in ((False, "as trained"), (True, "folded")):
            yield Claim(
                f"inference-{backbone}{'-folded' * folded}",
                "inference",
                f"BatchNorm speeds up inference: {backbone}{SUFFIX}, {form}, against {backbone}",
                f"{GAIN:.0%} faster",
                "inference",
                partial(inference_judged, backbone=backbone, folded=folded, published_gain=GAIN),
                is_headline=True,
            )


def _rows() -> Iterator[Claim]:
    for place, rows in (("table of models", TRAINED), ("planned models", PLANNED)):
        for row in rows:
            yield Claim(
                f"parameters-{row.model}",
                place,
                f"{row.model}: parameters",
                f"{row.parameters} M",
                "counts",
                partial(parameters_judged, model=row.model, published=row.parameters),
            )
            yield from _more_of(row, place)


def _more_of(row: Row, place: str) -> Iterator[Claim]:
    if row.shape is not None:
        dim, heads, depth = row.shape
        yield Claim(
            f"shape-{row.model}",
            place,
            f"{row.model}: width, heads, blocks",
            f"{dim}, {heads}, {depth}",
            "counts",
            partial(shape_judged, model=row.model, dim=dim, heads=heads, depth=depth),
        )
    if row.accuracy:
        why = _STABILITY if row.is_unstable else _IMAGENET
        text = f"{row.model}: top-1 on ImageNet"
        yield Claim(f"accuracy-{row.model}", place, text, row.accuracy, "elsewhere", unrun=why)
    if row.images_per_s:
        yield Claim(
            f"throughput-{row.model}",
            place,
            f"{row.model}: images per second",
            row.images_per_s,
            "elsewhere",
            unrun=f"of a device that is not named; 'bnvit-study measure {row.model} --dataset "
            "fake:512x3x224x1000 --work eval --batch-size 256' gives that of yours",
        )


def _detection() -> Iterator[Claim]:
    for name, published in DETECTION:
        yield Claim(
            f"detection-{name.replace(' ', '-').lower()}",
            "detection and segmentation",
            f"swin_tiny: {name}",
            published,
            "elsewhere",
            unrun="needs ImageNet, COCO and ADE20k, and a detector: no part of this project",
        )


def _statements() -> Iterator[Claim]:
    for name, text, why in STATEMENTS:
        yield Claim(name, "text", text, "", "elsewhere", unrun=why)
