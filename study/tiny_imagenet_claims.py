"""What the report on transfer to Tiny-ImageNet states, transcribed, and what judges it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from models.switches import ImageShape
from study.claims import Claim
from study.claims_counts import memory_judged, parameters_judged, work_judged

IMAGE = ImageShape(3, 384, 200)

_PROBES = (
    "needs Tiny-ImageNet, pretrained weights and GPU-days; by its own code these are linear "
    "probes: the backbone is frozen (docs/experiments.md)"
)
_HEADS = f"{_PROBES}, and of its two heads one is trained and both are averaged"


@dataclass(frozen=True)
class Row:
    """A row of the table; accuracies in per cent."""

    model: str
    paper: str  # acc@1 of the paper
    top1: str  # as it was reproduced there
    top5: str
    parameters: str  # millions
    flops_g: float
    memory: str
    memory_mib: float
    epoch_time: str  # on an RTX 3090
    why: str = _PROBES


ROWS = (
    Row("vit_large", "86.43", "86.52", "95.82", "304", 190.7, "1.13 GB", 1.13 * 1024, "22:56"),
    Row("cait_s36", "86.74", "86.66", "96.61", "68", 48.0, "781 MB", 781, "23:10"),
    Row(
        "deit_base_distilled", "87.29", "82.52", "94.16", "87", 55.5, "330 MB", 330, "9:20", _HEADS
    ),
    Row("swin_large", "91.35", "91.20", "98.01", "196", 103.9, "761 MB", 761, "20:30"),
)


def tiny_imagenet_claims() -> tuple[Claim, ...]:
    """All claims, by model."""
    return tuple(claim for row in ROWS for claim in (*_counted(row), *_trained(row)))


def tiny_imagenet_models() -> tuple[str, ...]:
    """The models whose sizes it gives."""
    return tuple(row.model for row in ROWS)


def _counted(row: Row) -> Iterator[Claim]:
    yield Claim(
        f"parameters-{row.model}",
        "table",
        f"{row.model}: parameters",
        f"{row.parameters} M",
        "counts",
        partial(parameters_judged, model=row.model, published=row.parameters),
        is_headline=True,
    )
    yield Claim(
        f"work-{row.model}",
        "table",
        f'{row.model}: "FLOPs"',
        f"{row.flops_g} B",
        "counts",
        partial(work_judged, model=row.model, published_g=row.flops_g),
        is_headline=True,
    )
    yield Claim(
        f"memory-{row.model}",
        "table",
        f'{row.model}: "memory"',
        row.memory,
        "counts",
        partial(memory_judged, model=row.model, published_mib=row.memory_mib),
        is_headline=True,
    )


def _trained(row: Row) -> Iterator[Claim]:
    for name, text, published in (
        ("paper-top1", "acc@1 of the paper", f"{row.paper} %"),
        ("top1", "acc@1 as reproduced", f"{row.top1} %"),
        ("top5", "acc@5 as reproduced", f"{row.top5} %"),
    ):
        yield Claim(
            f"{name}-{row.model}",
            "table",
            f"{row.model}: {text}",
            published,
            "elsewhere",
            unrun=row.why,
        )
    yield Claim(
        f"epoch-time-{row.model}",
        "table",
        f"{row.model}: time of an epoch on an RTX 3090",
        row.epoch_time,
        "elsewhere",
        unrun="needs Tiny-ImageNet, pretrained weights and that card",
    )
