"""One trial against the article's loop and against the floor of its matrix products.

    make bench          or    python bench/performance.py --output docs/performance.md
    make bench-quick    one model, few turns, nothing written

Hardware: a CPU; 2 cores and 8 GiB of memory do.
Expected time: 20 min on 2 cores, with --quick 2 min.
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation; MNIST is
fetched into --data-dir.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

# Not installed on most machines that measure: the packages lie beside bench/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import (
    BATCH_SIZE,
    EVALUATION_WAYS,
    Call,
    evaluation_call,
    floor_calls,
    inference_calls,
    training_call,
    training_ways,
)
from performance_page import page
from turns import take_turns

from models.registry import ARTICLE
from objectives.data import SearchData, load_search_data
from objectives.datasets import dataset
from objectives.hardware import processor
from objectives.layout_probe import Probe
from objectives.layouts import images_per_s, layouts
from objectives.precision import Precision

ROOT = Path(__file__).resolve().parents[1]
DATA_DIR = ROOT / ".bench-data"
CPU = torch.device("cpu")
SAMPLED = ("article", "ours", "ours, bf16")  # ways of evaluation whose memory is measured


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    models: tuple[str, ...] = tuple(ARTICLE)
    turns: int = 9
    steps: int = 20  # of training, in one turn
    evaluation_turns: int = 5
    inference_turns: int = 61
    layout_turns: int = 3
    layout_s: float = 15.0


QUICK = Amount(("vitbn",), 3, 10, 2, 5, 0, 0.0)


@dataclass
class Numbers:
    """All that was measured: seconds of each turn, by section and contender."""

    about: dict[str, Any]
    training: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    evaluation: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    inference: dict[str, tuple[float, ...]] = field(default_factory=dict)
    layouts: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # images/s
    peak_mib: dict[str, int] = field(default_factory=dict)


def measure(amount: Amount, about: dict[str, Any], data_dir: Path) -> Numbers:
    """All sections; within each the contenders take turns."""
    data = load_search_data(dataset("mnist", data_dir))
    about["validation_images"] = len(data.validation)
    numbers = Numbers(about, _training(amount, data), _evaluation(amount, data))
    _say(f"inference: {amount.inference_turns} turns")
    numbers.inference = _timed(inference_calls(data, CPU), amount.inference_turns)
    if amount.layout_turns:
        _say("peak memory, in processes of their own")
        numbers.peak_mib = _peaks(amount.models[-1], data_dir)
        for precision in get_args(Precision):
            probe = Probe(amount.models[-1], {}, "mnist", str(data_dir), BATCH_SIZE, precision)
            numbers.layouts[precision] = _layouts(amount, probe)
    return numbers


def _training(amount: Amount, data: SearchData) -> dict[str, dict[str, tuple[float, ...]]]:
    calls: dict[str, Call] = {f"|{name}": c for name, c in floor_calls(CPU, amount.steps).items()}
    for model in amount.models:
        for way in training_ways(CPU):
            calls[f"{model}|{way}"] = training_call(way, model, data, CPU, amount.steps)
    _say(f"training: {amount.turns} turns of {len(calls)} contenders, {amount.steps} steps each")
    return _by_model(_timed(calls, amount.turns))


def _evaluation(amount: Amount, data: SearchData) -> dict[str, dict[str, tuple[float, ...]]]:
    calls = {
        f"{model}|{way}": evaluation_call(way, model, data, CPU)
        for model in amount.models
        for way in EVALUATION_WAYS
    }
    _say(f"evaluation: {amount.evaluation_turns} turns of {len(calls)} contenders")
    return _by_model(_timed(calls, amount.evaluation_turns))


def _timed(calls: dict[str, Call], turns: int) -> dict[str, tuple[float, ...]]:
    return {name: times.turns_s for name, times in take_turns(calls, turns, CPU).items()}


def _by_model(times: dict[str, tuple[float, ...]]) -> dict[str, dict[str, tuple[float, ...]]]:
    grouped: dict[str, dict[str, tuple[float, ...]]] = {}
    for key, turns_s in times.items():
        model, _, name = key.partition("|")
        grouped.setdefault(model or "floor", {})[name] = turns_s
    return grouped


def _layouts(amount: Amount, probe: Probe) -> dict[str, list[float]]:
    tried = layouts(torch.get_num_threads())
    found: dict[str, list[float]] = {str(layout): [] for layout in tried}
    for turn in range(amount.layout_turns):
        _say(f"workers × threads, {probe.precision}: turn {turn + 1} of {amount.layout_turns}")
        for layout in tried:
            found[str(layout)].append(images_per_s(layout, probe, amount.layout_s))
    return found


def _peaks(model: str, data_dir: Path) -> dict[str, int]:
    found = {}
    for kind, ways in (("training", training_ways(CPU)), ("evaluation", SAMPLED)):
        for way in ways:
            command = [sys.executable, str(ROOT / "bench" / "peak_memory.py"), "--model", model]
            command += ["--way", way, "--data-dir", str(data_dir)]
            command += ["--evaluate"] if kind == "evaluation" else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{kind}: {way}"] = int(done.stdout)
    return found


def _about(amount: Amount, command: str) -> dict[str, Any]:
    return {
        "command": command,
        "date": str(date.today()),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": BATCH_SIZE,
        "amount": asdict(amount),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure; print the page or write it, and the numbers as JSON beside the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one model, few turns")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where MNIST is kept")
    parser.add_argument("--output", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    parser.add_argument("--page-of", type=Path, help="measure nothing: show these numbers")
    args = parser.parse_args()
    amount, command = (QUICK, "make bench-quick") if args.quick else (Amount(), "make bench")
    if args.page_of:
        numbers = Numbers(**json.loads(args.page_of.read_text()))
    else:
        numbers = measure(amount, _about(amount, command), args.data_dir)
    if args.json:
        args.json.write_text(json.dumps(asdict(numbers), indent=1) + "\n")
    text = page(asdict(numbers), None if args.quick else ROOT / "docs" / "results")
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
