"""How a run trains, beside its learning rate and batch size: frozen recipes and their presets.

Imports no torch: a study's recipe is read and told without it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from models.errors import InputError
from models.switches import SwitchValue, nearest

MOST_MARKS = 3  # changed fields that a table tells one by one
MOST_MAGNITUDE = 30  # of RandAugment, on torchvision's scale


@dataclass(frozen=True)
class Recipe:
    """Everything about training that is neither the model nor searched by default.

    The defaults are the article's: Adam, constant learning rate, cross-entropy, no augmentation.
    Lengths are shares of the run, so that they mean the same at 3 epochs and at 300.
    """

    name: str = "article"  # the preset that it began as

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.9  # SGD's
    weight_decay: float = 0.0  # not of norms and biases; AdamW's is decoupled
    lr_batch: int | None = None  # the lr is for a batch of so many images, and grows with it
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0  # share of the run over which the learning rate rises linearly from 0
    clip: float | None = None  # largest global L2 norm of a gradient
    accumulate: int = 1  # micro-batches of one optimiser step; BatchNorm sees each by itself
    checkpointing: bool = False  # blocks are computed again in the backward pass: less memory
    ema: float = 0.0  # decay of the moving average of the weights, which is what is judged then
    init: Literal["usual", "trunc_normal"] = "usual"  # of linear maps; trunc_normal: std 0.02
    train: Literal["all", "head"] | None = "all"  # head: a linear probe; None: to be chosen

    label_smoothing: float = 0.0
    augment: Literal["none", "randaugment", "autoaugment"] = "none"
    magnitude: int = 9  # of RandAugment, 0 to 30
    operations: int = 2  # of RandAugment on an image
    flip: float = 0.0  # probability of a horizontal flip
    crop: int = 0  # pixels of padding of which an image is cropped again
    erasing: float = 0.0  # probability that a rectangle of an image is erased
    mixup: float = 0.0  # Mixup's α; 0: none
    cutmix: float = 0.0  # CutMix's α; with Mixup each in half of the steps
    repeats: int = 1  # differently augmented copies of an image in a batch

    nbs: int | None = None  # normalisation batch size: images of a ghost batch; None: the batch
    sync_bn: bool = False  # statistics over the batches of all processes of a trial
    freeze_bn: float = 0.0  # last epochs in which BatchNorm keeps its population statistics

    teacher: str | None = None  # a checkpoint or timm:NAME to distil from
    distillation: Literal["none", "hard", "soft"] = "none"
    alpha: float = 0.5  # weight of the distillation loss against that of the labels
    tau: float = 3.0  # temperature of soft distillation

    def check(self) -> None:
        """Raise InputError where a value is out of its range, or two do not go together."""
        for names, low, high, is_open in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not (low <= value < high or (value == high and is_open)):
                    end = "" if high == float("inf") else f" to {high:g}"
                    raise InputError(f"{name}={value} must be from {low:g}{end}")
        if self.sync_bn and self.nbs is not None:
            raise InputError(
                f"sync_bn takes statistics over all processes, nbs={self.nbs} over so many images "
                "of one; leave one of them out"
            )
        if self.train is None:
            raise InputError(
                f"the recipe {self.name} needs to be told what it trains: --set train=head (a "
                "linear probe) or --set train=all (full fine-tuning)"
            )

    @property
    def is_mixing(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def is_augmenting(self) -> bool:
        """Whether images are changed, each by itself, before they are trained on."""
        return self.augment != "none" or any((self.flip, self.crop, self.erasing))

    @property
    def changes(self) -> dict[str, SwitchValue]:
        """The fields that differ from the preset it began as."""
        usual = PRESETS[self.name].recipe if self.name in PRESETS else Recipe(self.name)
        mine, theirs = asdict(self), asdict(usual)
        return {name: value for name, value in mine.items() if value != theirs[name]}

    @property
    def told(self) -> dict[str, SwitchValue]:
        """What differs from the article's recipe, without its name."""
        usual = asdict(Recipe())
        return {k: v for k, v in asdict(self).items() if k != "name" and v != usual[k]}

    @property
    def marks(self) -> list[str]:
        """What of it every table shows beside the model."""
        found = [] if self.name == "article" else [self.name]
        changed = {k: v for k, v in self.changes.items() if k not in _MARKED}
        if len(changed) <= MOST_MARKS:
            found += [f"{name} {value}" for name, value in changed.items()]
        else:
            found.append(f"{len(changed)} fields changed")
        if self.train == "head":
            found.append("linear probe")
        if self.teacher is not None:
            found.append(f"{self.distillation} distillation")
        if self.nbs is not None:
            found.append(f"NBS {self.nbs}")
        if self.sync_bn:
            found.append("SyncBN")
        if self.freeze_bn:
            found.append(f"BN frozen for the last {self.freeze_bn:g} epochs")
        return found

    @property
    def of_training(self) -> "Recipe":
        """The same without what is about BatchNorm alone, in which twins may differ."""
        usual = ARTICLE
        return replace(self, nbs=usual.nbs, sync_bn=usual.sync_bn, freeze_bn=usual.freeze_bn)

    def __str__(self) -> str:
        changed = [f"{name}={value}" for name, value in self.changes.items()]
        return " ".join([self.name, *changed])


ARTICLE = Recipe()

_MARKED = ("train", "nbs", "sync_bn", "freeze_bn", "teacher", "distillation", "alpha", "tau")
_INF = float("inf")
_RANGES = (  # names, lowest, highest, whether the highest is allowed
    (("momentum", "ema", "label_smoothing"), 0, 1, False),
    (("warmup", "flip", "erasing", "alpha"), 0, 1, True),
    (("weight_decay", "mixup", "cutmix", "freeze_bn", "crop"), 0, _INF, False),
    (("accumulate", "repeats", "operations", "lr_batch"), 1, _INF, False),
    (("nbs",), 2, _INF, False),
    (("clip", "tau"), 1e-9, _INF, False),
    (("magnitude",), 0, MOST_MAGNITUDE, True),
)


@dataclass(frozen=True)
class Preset:
    """A recipe with what it wants of the model and of the command, unless that is given."""

    recipe: Recipe
    source: str  # where it comes from, and where it departs from that
    switches: Mapping[str, SwitchValue] = field(default_factory=dict)  # where the model has them
    batch_size: int | None = None
    epochs: int | None = None
    image_size: int | None = None  # pixels


_DEIT = Recipe(
    name="deit",
    optimizer="adamw",
    weight_decay=0.05,
    lr_batch=512,
    schedule="cosine",
    warmup=5 / 300,
    ema=0.99996,
    init="trunc_normal",
    label_smoothing=0.1,
    augment="randaugment",
    magnitude=27,
    flip=0.5,
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeats=3,
)
_AUGREG = Recipe(
    optimizer="adamw",
    weight_decay=0.03,
    schedule="cosine",
    warmup=0.1,
    clip=1.0,
    flip=0.5,
)
_AUGREG_SOURCE = (
    "Steiner et al. 2021 (How to train your ViT?), arXiv 2106.10270: RandAugment and Mixup by "
    "strength, on torchvision's scale; dropout and drop_path are switches of their own"
)
_AUGREG_LEVELS = {  # strength: RandAugment's magnitude (None: none), Mixup's α
    "none": (None, 0.0),
    "light1": (0, 0.0),
    "light2": (10, 0.2),
    "medium1": (15, 0.2),
    "medium2": (15, 0.5),
    "strong1": (20, 0.5),
    "strong2": (20, 0.8),
}


def _augreg(level: str) -> Preset:
    magnitude, mixup = _AUGREG_LEVELS[level]
    recipe = replace(_AUGREG, name=f"augreg-{level}", mixup=mixup)
    if magnitude is not None:
        recipe = replace(recipe, augment="randaugment", magnitude=magnitude)
    return Preset(recipe, _AUGREG_SOURCE)


PRESETS: Mapping[str, Preset] = {
    "article": Preset(ARTICLE, "Adam, constant learning rate, no augmentation"),
    "deit": Preset(
        _DEIT,
        "Touvron et al. 2021 (DeiT), arXiv 2012.12877, table 9; warm-up of 5 in 300 epochs; "
        "--set augment=autoaugment is its alternative",
        {"drop_path": 0.1, "dropout": 0.0},
    ),
    **{f"augreg-{level}": _augreg(level) for level in _AUGREG_LEVELS},
    "finetune": Preset(
        Recipe("finetune", optimizer="sgd", schedule="cosine", clip=1.0, flip=0.5),
        "Dosovitskiy et al. 2021 (ViT), arXiv 2010.11929, table 4: SGD with momentum, batch 512",
        batch_size=512,
    ),
    "tiny-transfer": Preset(
        Recipe("tiny-transfer", optimizer="sgd", schedule="cosine", accumulate=4, train=None),
        "transfer to Tiny-ImageNet at 384 pixels, 30 epochs, batch 128 in 4 micro-batches",
        batch_size=128,
        epochs=30,
        image_size=384,
    ),
}


def preset(name: str) -> Preset:
    """The preset called `name`; raises InputError, suggesting the nearest."""
    if name not in PRESETS:
        raise InputError(f"unknown recipe '{name}'{nearest(name, list(PRESETS))}")
    return PRESETS[name]


def stored_recipe(value: str | Mapping[str, Any]) -> Recipe:
    """The recipe as a study has stored it; earlier versions stored the article's by its name."""
    return ARTICLE if isinstance(value, str) else Recipe(**value)


def field_types() -> dict[str, object]:
    """The type of each field that can be set, by name."""
    hints = get_type_hints(Recipe)
    return {one.name: hints[one.name] for one in fields(Recipe) if one.name != "name"}


def choices(kind: object) -> tuple[str, ...]:
    """The values of a field whose type is a choice; empty for others."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Literal:
            return get_args(part)
    return ()
