"""What the article on ViT, ViTBNFFN and ViTBN states, transcribed, and what judges it."""

from collections.abc import Iterator
from functools import partial

from objectives.contenders import LR, Work
from study.claims import Claim, Part
from study.claims_accuracy import (
    above_judged,
    accuracy_judged,
    dropout_judged,
    running_stats_judged,
)
from study.claims_curves import convergence_judged, loss_judged, stability_judged
from study.claims_speed import BN_MODELS, gain_judged, ratio_judged
from study.claims_times import growth_judged, order_judged

MODELS = ("vit", *BN_MODELS)
RACED_LR = LR  # at which the article's loop is raced, from initial weights
LRS = (5e-4, 5e-3, 1e-2)
BATCH_SIZE = 100
SEARCH_EPOCHS = 3
DROPOUT = 0.1
TUNED = "tuned"

# Times of ViT by those of the model: training and test, by learning rate.
RATIOS: dict[float | str, dict[str, tuple[float, float]]] = {
    5e-4: {"vitbnffn": (2.7, 2.6), "vitbn": (2.5, 2.5)},
    5e-3: {"vitbnffn": (3.6, 2.5), "vitbn": (3.5, 2.5)},
    1e-2: {"vitbnffn": (2.7, 2.6), "vitbn": (4.3, 2.7)},
    TUNED: {"vitbnffn": (3.9, 2.6), "vitbn": (3.5, 2.5)},
}
# Test accuracies in per cent; those at the other learning rates are left open.
ACCURACIES: dict[float | str, dict[str, float]] = {
    5e-4: {"vit": 98.2, "vitbnffn": 97.8, "vitbn": 97.1},
    TUNED: {"vit": 98.1, "vitbnffn": 97.6, "vitbn": 97.8},
}
ONSET = (10.0, 20.0)  # epochs that count as "about 15"
LEAST_AT_HIGH_LR = 97.0  # per cent, of both BatchNorm models at 1e-2

_WORKS: tuple[tuple[Work, str], ...] = (("train", "training"), ("eval", "test"))


def article_claims() -> tuple[Claim, ...]:
    """All claims, in the order of the article."""
    return (*_speed(), *_accuracies(), *_convergence(), *_stability(), *_times(), *_expectations())


def place_of(setting: float | str) -> str:
    """Where the article gives numbers of a setting."""
    return "tables 2 and 3, figure 8" if setting == TUNED else "table 1, figures 3–5"


def _speed() -> Iterator[Claim]:
    for work, words in _WORKS:
        yield Claim(
            f"gain-{work}",
            "abstract",
            f"BatchNorm models are at least 60 % faster in {words}",
            "g ≥ 60 %",
            "speed",
            partial(gain_judged, work=work),
            is_headline=True,
        )
    for setting, models in RATIOS.items():
        for model, ratios in models.items():
            for (work, words), published in zip(_WORKS, ratios, strict=True):
                yield Claim(
                    f"ratio-{setting}-{model}-{work}",
                    place_of(setting),
                    f"{model}, {_at(setting)}: time of ViT by its own, {words}",
                    f"r {published:g}, g {1 - 1 / published:.0%}",
                    "speed",
                    partial(
                        ratio_judged,
                        model=model,
                        work=work,
                        published=published,
                        is_raced=setting == RACED_LR,
                    ),
                )


def _accuracies() -> Iterator[Claim]:
    for setting, models in ACCURACIES.items():
        for model, published in models.items():
            yield Claim(
                f"accuracy-{setting}-{model}",
                place_of(setting),
                f"{model}, {_at(setting)}: test accuracy",
                f"{published} %",
                _part(setting),
                partial(accuracy_judged, model=model, published=published / 100, lr=_lr(setting)),
                is_headline=setting == 5e-4,
            )
    for model in BN_MODELS:
        yield Claim(
            f"accuracy-0.01-{model}",
            place_of(1e-2),
            f"{model}, {_at(1e-2)}: test accuracy",
            f"> {LEAST_AT_HIGH_LR:g} %",
            "experiment1",
            partial(above_judged, model=model, lr=1e-2, least=LEAST_AT_HIGH_LR / 100),
        )


def _convergence() -> Iterator[Claim]:
    for setting in (5e-4, TUNED):
        yield Claim(
            f"convergence-{setting}",
            place_of(setting),
            f"ViT converges in fewer epochs, {_at(setting)}",
            "fewer epochs",
            _part(setting),
            partial(convergence_judged, lr=_lr(setting), expected="fewer"),
            is_headline=setting == 5e-4,
        )
    yield Claim(
        "loss-0.0005",
        place_of(5e-4),
        f"ViT has the lower training loss, {_at(5e-4)}",
        "lower",
        "experiment1",
        partial(loss_judged, lr=5e-4),
    )
    yield Claim(
        "convergence-0.005",
        place_of(5e-3),
        f"ViT has no advantage in convergence, {_at(5e-3)}",
        "alike",
        "experiment1",
        partial(convergence_judged, lr=5e-3, expected="alike"),
    )


def _stability() -> Iterator[Claim]:
    yield Claim(
        "stable-0.0005",
        "text",
        f"all three are stable, {_at(5e-4)}",
        "stable",
        "experiment1",
        partial(stability_judged, lr=5e-4, stable=MODELS),
    )
    yield Claim(
        "unstable-0.01",
        place_of(1e-2),
        f"ViT is unstable from about epoch 15 on, {_at(1e-2)}",
        "unstable",
        "experiment1",
        partial(stability_judged, lr=1e-2, stable=(), unstable=("vit",), onset=ONSET),
        is_headline=True,
    )
    yield Claim(
        "stable-0.01",
        place_of(1e-2),
        f"both BatchNorm models stay stable, {_at(1e-2)}",
        "stable",
        "experiment1",
        partial(stability_judged, lr=1e-2, stable=BN_MODELS),
    )
    yield Claim(
        "larger-lr",
        "abstract",
        "BatchNorm allows a larger learning rate without instability",
        "at 0.01 stable, ViT not",
        "experiment1",
        partial(stability_judged, lr=1e-2, stable=BN_MODELS, unstable=("vit",)),
        is_headline=True,
    )


def _times() -> Iterator[Claim]:
    yield Claim(
        "time-0.005",
        place_of(5e-3),
        f"ViT's training time grows, the others' does not, {_at(5e-3)}",
        "grows",
        "denormals",
        partial(growth_judged, lr=5e-3, grows=("vit",), stays=BN_MODELS),
        is_headline=True,
    )
    yield Claim(
        "time-0.01",
        place_of(1e-2),
        f"ViTBNFFN's training time grows, ViTBN's does not, {_at(1e-2)}",
        "grows",
        "denormals",
        partial(growth_judged, lr=1e-2, grows=("vitbnffn",), stays=("vitbn",)),
    )
    yield Claim(
        "time-order",
        "figure 6",
        "ViT's training time depends most on the learning rate, ViTBN's least",
        "most, least",
        "denormals",
        partial(order_judged, lr=max(LRS), most="vit", least="vitbn"),
    )


def _expectations() -> Iterator[Claim]:
    yield Claim(
        "running-statistics",
        "text",
        "the default running statistics do no harm on this data set",
        "no harm",
        "experiment1",
        partial(running_stats_judged, models=BN_MODELS),
    )
    yield Claim(
        "dropout",
        "text",
        "BatchNorm removes the need for dropout (expected, not shown)",
        "no need",
        "dropout",
        partial(dropout_judged, lr=5e-4),
    )


def _at(setting: float | str) -> str:
    return "each with its tuned values" if setting == TUNED else f"lr {setting:g}, batch size 100"


def _lr(setting: float | str) -> float | None:
    return None if isinstance(setting, str) else setting


def _part(setting: float | str) -> Part:
    return "experiment2" if setting == TUNED else "experiment1"
