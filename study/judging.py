"""How evidence becomes a mark: intervals against what was published, and budgets in words."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from models.registry import variant
from objectives.datasets import MNIST_SHAPE
from objectives.intervals import Interval
from study.claims import Status
from study.identity import StudyIdentity
from study.results import StudyResult
from study.statistics import LEAST_FOR_VERDICT
from study.words import counted

ARTICLE_EPOCHS = 30
ARTICLE_IMAGES = 55_000  # its 60,000 without those that validate here
ARTICLE_TRIALS = 20  # of a search


def placed(found: Interval, low: float, high: float) -> Status:
    """Whether what is known to lie in an interval lies between `low` and `high`."""
    if low <= found.low and found.high <= high:
        return "confirmed"
    if found.high < low or found.low > high:
        return "refuted"
    return "undecided"


def all_of(statuses: Iterable[Status]) -> Status:
    """The mark of a claim that says several things at once."""
    found = set(statuses)
    if "refuted" in found:
        return "refuted"
    return "undecided" if "undecided" in found else "confirmed"


def too_few(seeds: int) -> str:
    """What is said where there are too few runs for a mark; empty where there are enough."""
    missing = LEAST_FOR_VERDICT - seeds
    if missing <= 0:
        return ""
    have = counted(seeds, "seed")
    return f"{have}: {missing} more {'is' if missing == 1 else 'are'} needed for a mark"


def short_of_article(results: Sequence[StudyResult], besides: str = "") -> str:
    """In what the training was not the article's, `besides` a switch; empty: in nothing."""
    said = []
    for result in results:
        identity = result.identity
        if identity.dataset.partition(":")[0] != "mnist":
            said.append(f"trained on {identity.dataset}, not on mnist")
        if identity.epochs < ARTICLE_EPOCHS:
            said.append(f"{counted(identity.epochs, 'epoch')} of the article's {ARTICLE_EPOCHS}")
        if identity.train_images < ARTICLE_IMAGES:
            said.append(f"{identity.train_images:,} training images of {ARTICLE_IMAGES:,}")
        if result.source is not None and (result.source_trials or 0) < ARTICLE_TRIALS:
            said.append(f"the best of {result.source_trials or 0} trials of {ARTICLE_TRIALS}")
        if other := _other_switches(identity, besides):
            said.append(f"models with {other}")
    return ", ".join(dict.fromkeys(said))


def _other_switches(identity: StudyIdentity, besides: str) -> str:
    """In what a model is not the article's."""
    usual = asdict(variant(identity.model).resolved(None, MNIST_SHAPE))
    told = asdict(identity.model_switches).items()
    others = [(name, value) for name, value in told if value != usual[name] and name != besides]
    return ", ".join(f"{name} {value}" for name, value in others)


def budget_of(results: Sequence[StudyResult]) -> str:
    """What the runs behind a mark had."""
    said = []
    for result in results:
        identity = result.identity
        seeds = len({run.seed for run in result.runs})
        said.append(
            f"{counted(seeds, 'seed')}, {counted(identity.epochs, 'epoch')} of "
            f"{identity.train_images:,} images"
        )
    return "; ".join(dict.fromkeys(said))


def shown(found: Interval, digits: int = 2) -> str:
    """An estimate and its interval."""
    low, high = (f"{each:.{digits}f}" for each in (found.low, found.high))
    return f"{found.estimate:.{digits}f} ({low}–{high})".replace("-", "−")


def percent(found: Interval, digits: int = 2) -> str:
    """An estimate and its interval, in per cent."""
    scaled = Interval(*(100 * each for each in (found.estimate, found.low, found.high)))
    low, high = (f"{each:.{digits}f}" for each in (scaled.low, scaled.high))
    return f"{scaled.estimate:.{digits}f} % ({low} to {high})".replace("-", "−")
