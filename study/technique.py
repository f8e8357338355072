"""Experiments on techniques of training: which runs answer which question."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from models.errors import InputError
from models.profile import profile
from models.registry import variant
from models.switches import ImageShape, Switches, nearest
from objectives.recipes import ARTICLE, preset
from study.experiment_requests import planned
from study.plan import Plan
from study.request import Request

LEVELS = ("none", "light1", "strong1")
REGULARISATION = 0.1  # of dropout and of stochastic depth, where there is some
FRACTIONS = (0.1, 0.3, 1.0)
BATCH_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class TechniqueOptions:
    """What can be chosen of an experiment; each needs some of it."""

    lr: float
    batch_size: int
    seeds: int
    fractions: tuple[float, ...] = FRACTIONS  # of the train split
    levels: tuple[str, ...] = LEVELS  # of augmentation, AugReg's
    batch_sizes: tuple[int, ...] = BATCH_SIZES


@dataclass(frozen=True)
class Arm:
    """One line of the figure at one point: a fit with several seeds."""

    line: str
    x: float
    request: Request


@dataclass(frozen=True)
class Technique:
    """A question about training, and how it is answered."""

    name: str
    question: str
    x_title: str
    arms: Callable[[Request, ImageShape, int, TechniqueOptions], Iterator[Arm]]
    log_x: bool = True


def technique(name: str) -> Technique:
    """The experiment called `name`; raises InputError, suggesting the nearest."""
    if name not in TECHNIQUES:
        raise InputError(f"unknown experiment '{name}'{nearest(name, list(TECHNIQUES))}")
    return TECHNIQUES[name]


def _fit(
    base: Request, slug: str, options: TechniqueOptions, batch_size: int | None = None
) -> Request:
    configuration = (options.lr, batch_size or options.batch_size)
    plan = Plan("fit", (configuration,), options.seeds, "train")
    return planned(replace(base, study=f"{base.study}-{slug}"), plan)


def _fractions(
    base: Request, images: int, options: TechniqueOptions
) -> Iterator[tuple[float, Request]]:
    for fraction in options.fractions:
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"--fractions {fraction:g} must lie in (0, 1]")
        count = max(round(images * fraction), 1)
        yield fraction, replace(base, train_images=count, study=f"{base.study}-{count}")


def _regularisation(
    base: Request, _: ImageShape, images: int, options: TechniqueOptions
) -> Iterator[Arm]:
    """AugReg's question; regularised: dropout and stochastic depth of `REGULARISATION`."""
    given = _with(base)
    is_recipe_given = replace(base.recipe, flip=ARTICLE.flip) != ARTICLE
    if is_recipe_given or given.dropout or given.drop_path:
        raise InputError(
            "regularisation brings recipes, dropout and drop_path of its own; beside sizes of the "
            "model only --set flip is taken"
        )
    for level in options.levels:
        recipe = replace(preset(f"augreg-{level}").recipe, flip=base.recipe.flip)
        for rate in (0.0, REGULARISATION):
            line = f"{level}, regularised" if rate else level
            for fraction, request in _fractions(base, images, options):
                switches = _with(request, dropout=rate, drop_path=rate)
                asked = replace(request, recipe=recipe, switches=switches)
                yield Arm(line, fraction, _fit(asked, f"{level}-{rate:g}", options))


def _transfer(
    base: Request, _: ImageShape, images: int, options: TechniqueOptions
) -> Iterator[Arm]:
    if base.weights is None:
        raise InputError("transfer begins with trained weights; name them with --weights")
    scratch = replace(base, weights=None, convert=False, new_head=False)
    probe = replace(base, recipe=replace(base.recipe, train="head"))
    kinds = {"from scratch": scratch, "fine-tuned": base, "linear probe": probe}
    for line, kind in kinds.items():
        for fraction, request in _fractions(kind, images, options):
            yield Arm(line, fraction, _fit(request, line.replace(" ", "-"), options))


def _patches(base: Request, image: ImageShape, _: int, options: TechniqueOptions) -> Iterator[Arm]:
    """A small model with small patches against a large one with large patches."""
    if not base.model.startswith("deit_tiny"):
        raise InputError(f"patches is about deit_tiny and deit_small; --model {base.model} is not")
    large = base.model.replace("deit_tiny", "deit_small", 1)
    usual = variant(base.model).resolved(base.switches, image).patch_size
    assert usual is not None  # a DeiT has patches
    small = [size for size in range(1, usual + 1) if image.size % (2 * size) == 0]
    if not small:
        raise InputError(f"images of {image.size} pixels have no patches of half another's size")
    asked = [
        replace(base, switches=_with(base, patch_size=small[-1])),
        replace(base, model=large, switches=_with(base, patch_size=2 * small[-1])),
    ]
    macs = [_macs(one, image) for one in asked]
    epochs = max(round(base.epochs * macs[0] / macs[1]), 1)
    asked[1] = replace(asked[1], epochs=epochs)
    for one, count in zip(asked, macs, strict=True):
        assert one.switches is not None
        line = f"{one.model}/{one.switches.patch_size}, {one.epochs} epochs"
        yield Arm(line, count * one.epochs / 1e9, _fit(one, one.model, options))


def _distilled(base: Request, _: ImageShape, __: int, options: TechniqueOptions) -> Iterator[Arm]:
    for size in options.batch_sizes:
        yield Arm(base.model, size, _fit(base, f"batch-{size}", options, size))


def _with(request: Request, **values: object) -> Switches:
    """The request's switches with other values."""
    switches = request.switches or variant(request.model).switches()
    return replace(switches, **values)  # type: ignore[arg-type]


def _macs(request: Request, image: ImageShape) -> int:
    model = variant(request.model).build_blank(image, request.switches)
    return profile(model, image).macs


TECHNIQUES: Mapping[str, Technique] = {
    one.name: one
    for one in (
        Technique(
            "regularisation",
            "Does augmentation or regularisation help, and with how much data?",
            "share of the training images",
            _regularisation,
        ),
        Technique(
            "transfer",
            "Are trained weights worth more than training from scratch, and with how much data?",
            "share of the training images",
            _transfer,
        ),
        Technique(
            "patches",
            "Is a small model with small patches better than a large one with large patches that "
            "computes as much?",
            "multiply-adds of an image over all epochs (10⁹)",
            _patches,
            log_x=False,
        ),
        Technique(
            "batches",
            "Does a distilled model depend on the batch size?",
            "batch size",
            _distilled,
        ),
    )
}
