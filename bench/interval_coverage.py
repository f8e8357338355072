"""Do the intervals cover what they say, and are verdicts wrong as rarely as they say?

    python bench/interval_coverage.py --record speed       # ten minutes, nothing beside
    python bench/interval_coverage.py --record accuracy    # a quarter of an hour
    python bench/interval_coverage.py --output docs/results/coverage.md     # from the record

The record is of a model against itself: speed in races of its own, test accuracy over many seeds.
On it the claims of a difference are counted that there is none of, and those of a planted one.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from models.registry import variant
from objectives import stretch
from objectives.contenders import Entrant, Task, contenders, entrant
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.execution import FAST
from objectives.hardware import processor
from objectives.intervals import Interval, median_interval
from objectives.measuring import measure_test
from objectives.recipe import TrainConfig
from objectives.speed import Goal, is_narrow, race, ratio_of
from objectives.starting import start
from objectives.stretch import Contender
from objectives.training import train
from study.statistics import compared, mean_interval, share_interval

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "model-against-itself.json"
SUBSET = f"idx:{ROOT / 'tests' / 'fixtures' / 'mnist-subset'}"
CPU = torch.device("cpu")

RACES = 700
ROUNDS = 30
WARM_UP_S = 0.05  # instead of the usual, as these models have run many times by then
SPEED_MODEL, SPEED_BATCH = "vit", 20
SEEDS = 240
ACCURACY_MODEL, LR, BATCH_SIZE, EPOCHS = "vitbn", 1e-3, 50, 2

SIMULATED = 20_000  # samples behind each figure of coverage
COMPARISONS = 4_000  # drawn from the record of accuracies
PLANTED = 1.10  # times slower
GOAL = Goal(half_width=0.02, most_rounds=ROUNDS, sample_s=0.005, kernel_s=0.05)

Draw = Callable[[np.random.Generator, int], "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def record(path: Path, part: str) -> None:
    """Race a model against itself, or train it with many seeds; keeps what came out."""
    told = json.loads(path.read_text()) if path.exists() else {}
    recorded = {"speed": _all_raced, "accuracy": _all_trained}[part]()
    told[part] = {
        "date": str(date.today()),
        "processor": processor(),
        "torch": torch.__version__,
        **recorded,
    }
    path.write_text(json.dumps(told, sort_keys=True) + "\n")


def _all_raced() -> dict[str, object]:
    stretch.WARM_UP_S = WARM_UP_S
    data = _loaded()
    one = entrant(variant(SPEED_MODEL), None, data)
    return {
        "model": SPEED_MODEL,
        "batch_size": SPEED_BATCH,
        "races": [_raced(one, data) for _ in range(RACES)],
    }


def _raced(one: Entrant, data: SearchData) -> list[list[float]]:
    """Microseconds of each round of two models that are the same, each built anew."""
    task = Task("eval", SPEED_BATCH, "float32", FAST, data, CPU)

    def build(is_reversed: bool) -> list[Contender]:
        names = ("b", "a") if is_reversed else ("a", "b")
        return [replace(contenders([one], task)[0], name=name) for name in names]

    found = race(build, CPU, replace(GOAL, half_width=0.0))
    return [[round(1e6 * s, 1) for s in timing.samples_s] for timing in found.timings]


def _loaded() -> SearchData:
    torch.set_num_threads(1)
    return load_search_data(dataset(SUBSET, ROOT))


def _all_trained() -> dict[str, object]:
    """No times are taken here, so that all cores may work."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        accuracies = list(pool.map(_trained, range(SEEDS), chunksize=10))
    return {
        "model": ACCURACY_MODEL,
        "lr": LR,
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "test_accuracies": accuracies,
    }


def _trained(seed: int) -> float:
    data = _loaded()
    images = len(data.train)
    config = TrainConfig(
        model=ACCURACY_MODEL,
        switches=variant(ACCURACY_MODEL).resolved(None, data.shape),
        dataset=SUBSET,
        lr=LR,
        batch_size=BATCH_SIZE,
        rungs=(images * EPOCHS,),
        train_images=images,
        seed=seed,
    )
    run = start(config, data, CPU)
    list(train(run))
    return measure_test(run, data.validation).test_accuracy


def speed_claims(races: Sequence[Sequence[Sequence[float]]], slowed: float = 1.0) -> list[str]:
    """What is claimed of b against a in each race, b being slowed down so many times."""
    return [_claim(ratio_of(a, [slowed * s for s in b])) for a, b in races]


def _stopped(ratios: Sequence[float], goal: Goal) -> Interval:
    """The median at the look after which a race would have ended."""
    for look in goal.looks():
        found = median_interval(ratios[:look])
        if is_narrow(found, goal.half_width):
            break
    return found


def _claim(ratio: Interval) -> str:
    if ratio.contains(1.0):
        return "none"
    return "faster" if ratio.estimate > 1 else "slower"


def accuracy_claims(accuracies: Sequence[float], pairs: int) -> float:
    """The share of comparisons of the model with itself that claim a difference.

    Drawn from the record without replacement within a comparison.
    """
    drawn = np.random.default_rng(pairs)
    claims = 0
    for _ in range(COMPARISONS):
        values = drawn.choice(accuracies, 2 * pairs, replace=False)
        differences = values[:pairs] - values[pairs:]
        claims += not mean_interval(list(differences)).contains(0.0)  # as `Comparison.verdict` does
    return claims / COMPARISONS


def coverage(draw: Draw, truth: float, count: int, interval: Callable[..., Interval]) -> float:
    """How often the interval of `count` draws contains the truth."""
    generator = np.random.default_rng(count)
    samples = (draw(generator, count) for _ in range(SIMULATED))
    return sum(interval(list(sample)).contains(truth) for sample in samples) / SIMULATED


def share_coverage(count: int) -> float:
    """Of the interval of a share, over shares that are evenly spread over [0, 1]."""
    generator = np.random.default_rng(count)
    shares = generator.random(SIMULATED)
    hits = generator.binomial(count, shares)
    known = [share_interval(hit, count) for hit in range(count + 1)]
    pairs = zip(shares, hits, strict=True)
    return sum(known[hit].contains(share) for share, hit in pairs) / SIMULATED


def page(told: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The figures for people, as lines of Markdown."""
    speed, accuracy = told["speed"], told["accuracy"]
    values = accuracy["test_accuracies"]
    yield from _coverage_lines(values)
    races, drawn = speed["races"], f"{COMPARISONS:,} comparisons drawn from {len(values)} runs"
    claims, planted = speed_claims(races), speed_claims(races, PLANTED)
    wrong = sum(claim != "none" for claim in claims) / len(claims)
    found = sum(claim == "slower" for claim in planted) / len(planted)
    yield from (
        "",
        "## A model against itself",
        "",
        *(f"Recorded: {part}, {_place(each)}." for part, each in told.items()),
        "",
        "| comparison | repeats | a difference is claimed |",
        "|---|---|---:|",
        f"| speed, {speed['model']} evaluated with {speed['batch_size']} images, each race with "
        f"models built anew | {len(races)} races | {wrong:.1%} ({claims.count('faster')} times of "
        f"the second that it is faster, {claims.count('slower')} times slower) |",
    )
    for pairs in (5, 10):
        share = accuracy_claims(values, pairs)
        against = f"{accuracy['model']}, {pairs} seeds against {pairs}"
        yield f"| accuracy, {against} | {drawn} | {share:.1%} |"
    slowed = f"one of both slowed down by {PLANTED - 1:.0%}"
    yield from (
        f"| speed, {slowed} | {len(races)} races | {found:.1%} |",
        "",
        "Of the first three, 5 % are meant; the last is to be found in at least 95 %.",
    )


def _place(part: dict[str, Any]) -> str:
    return f"{part['date']}, {part['processor']}, one thread, torch {part['torch']}"


def _coverage_lines(accuracies: Sequence[float]) -> Iterator[str]:
    truth = float(np.mean(accuracies))
    intervals: dict[str, Callable[[int], float]] = {
        "mean, normal values (Student)": lambda n: coverage(_normal, 0.0, n, mean_interval),
        "mean, recorded test accuracies (Student)": lambda n: coverage(
            lambda g, k: g.choice(accuracies, k), truth, n, mean_interval
        ),
        "P(A > B), normal differences (noncentral t)": lambda n: coverage(
            lambda g, k: g.normal(0.5, 1.0, k), 0.6914624612740131, n, _p_better
        ),
        "share, over all shares (Jeffreys)": share_coverage,
    }
    yield from ("| interval of 95 % | 3 | 5 | 10 |", "|---|---:|---:|---:|")
    for name, covered in intervals.items():
        yield f"| {name} | " + " | ".join(f"{covered(n):.1%}" for n in (3, 5, 10)) + " |"
    yield from ("", "| interval of 95 % | 15 | 30 | 60 |", "|---|---:|---:|---:|")
    medians = (coverage(_stalling, 1.0, n, median_interval) for n in (15, 30, 60))
    cells = " | ".join(f"{share:.1%}" for share in medians)
    yield f"| median, times with stalls (interpolated order statistics) | {cells} |"
    goal = Goal()
    stopped = coverage(_stalling, 1.0, goal.most_rounds, lambda ratios: _stopped(ratios, goal))
    yield from (
        "",
        f"A race looks at its interval after {', '.join(map(str, goal.looks()))} rounds and ends "
        f"once it is narrow: at the look where it ends, the same interval covers {stopped:.1%}.",
    )


def _p_better(values: list[float]) -> Interval:
    return compared(values, [0.0] * len(values)).p_better


def _normal(
    generator: np.random.Generator, count: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return generator.normal(0.0, 1.0, count)


def _stalling(
    generator: np.random.Generator, count: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Ratios about 1, one in ten of them far off, to either side."""
    usual = generator.normal(0.0, 0.02, count)
    return np.exp(np.where(generator.random(count) < 0.1, 20 * usual, usual))


def main() -> None:
    """Record, or make the page of a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", choices=("speed", "accuracy"))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.record is not None:
        record(RECORD, args.record)
        return
    lines = [
        "# Do the intervals cover, and are the verdicts right?",
        "",
        "    python bench/interval_coverage.py --record speed",
        "    python bench/interval_coverage.py --record accuracy",
        "    python bench/interval_coverage.py --output docs/results/coverage.md",
        "",
        f"Coverage of nominal 95 %, by {SIMULATED:,} simulated samples of so many values each.",
        "",
        *page(json.loads(RECORD.read_text())),
    ]
    text = "\n".join(lines) + "\n"
    print(text) if args.output is None else args.output.write_text(text)


if __name__ == "__main__":
    main()
