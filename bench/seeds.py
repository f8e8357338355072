"""Accuracy of the fast ways against the plain one, over seeds that both train with.

    python bench/seeds.py --json docs/results/seeds.json

Hardware: a CPU; a process for each model.
Expected time: 40 min on 2 cores.
Needs torch ≥ 2.11, torchvision, einops, timm, numpy and scipy, and no installation.
"""

import argparse
import json
import shlex
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import WAYS, config_of
from performance import CPU, DATA_DIR
from scipy.stats import t

from models.registry import ARTICLE
from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.hardware import processor
from objectives.starting import start
from objectives.training import train

LR = 1e-3
COMPARED = tuple(WAYS)  # the first is what the others are compared with


def accuracies(model: str, seeds: int, epochs: int, data_dir: Path) -> dict[str, list[float]]:
    """Validation accuracy at the end of each seed's run, by way; shares in [0, 1]."""
    torch.set_num_threads(1)
    data = load_search_data(dataset("mnist", data_dir))
    found: dict[str, list[float]] = {way: [] for way in COMPARED}
    for seed in range(seeds):
        for way in COMPARED:
            execution, precision = WAYS[way]
            config = config_of(model, data, precision)
            config = replace(config, seed=seed, lr=LR, rungs=(epochs * len(data.train),))
            run = start(config, data, CPU, execution)
            list(train(run))
            found[way].append(run.curve[-1].val_accuracy)
            print(f"{model}, seed {seed}, {way}: {found[way][-1]:.4f}", file=sys.stderr, flush=True)
    return found


def row(model: str, way: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Means with 95 % intervals, of the accuracy and of its paired difference to the plain way."""
    pairs = zip(found[way], found[COMPARED[0]], strict=True)
    differences = [100.0 * (mine - theirs) for mine, theirs in pairs]
    return {
        "model": model,
        "way": way,
        "values": found[way],
        "accuracy": _interval([100.0 * value for value in found[way]], "%"),
        "difference": "" if way == COMPARED[0] else _interval(differences, "points"),
    }


def _interval(values: list[float], unit: str) -> str:
    """Mean and the half-width of Student's interval."""
    width = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {width:.2f} {unit}"


def main() -> None:
    """Train all, and write the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(ARTICLE))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    dataset("mnist", args.data_dir).fetch()  # once, before the processes want it
    work = partial(accuracies, seeds=args.seeds, epochs=args.epochs, data_dir=args.data_dir)
    with ProcessPoolExecutor(len(args.models)) as pool:
        found = dict(zip(args.models, pool.map(work, args.models), strict=True))
    rows = [row(model, way, found[model]) for model in args.models for way in COMPARED]
    about = (
        f"epochs: {args.epochs}, of 55,000 MNIST images, batch 100, lr {LR:g}, {args.seeds} seeds, "
        f"judged on 5,000; {processor()}, 1 thread, torch {torch.__version__}."
    )
    result = {
        "command": shlex.join(["python", "bench/seeds.py", *sys.argv[1:]]),
        "date": str(date.today()),
        "about": about,
        "rows": rows,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
