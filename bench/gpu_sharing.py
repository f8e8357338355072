"""How much workers that share a GPU train together: processes with one CUDA context each.

    python bench/gpu_sharing.py [--workers 1 2 4 8] [--turns 3]

Hardware: one CUDA device; without one a single line says so and nothing is measured.
Expected time: half a minute, of which half is the start of the processes.
Needs torch ≥ 2.11, torchvision, einops, timm and numpy, no more, and no installation.

Each process replays its training step from a CUDA graph, as workers do. With NVIDIA's Multi-Process
Service running (`nvidia-cuda-mps-control -d`) the same measures what that changes.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import BATCH_SIZE, GRAPHED, config_of, stretches

from objectives.data import load_search_data
from objectives.datasets import dataset
from objectives.hardware import has_mps

SUBSET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "mnist-subset"
STEPS = 50  # between two looks at the clock, at which the host waits for the device
WARM_UP_STRETCHES = 2
PATIENCE_S = 120.0  # for all processes to be ready

Measured = tuple[int, float]
"""How many trained at the same time, and the images per second of one of them."""


def work(
    index: int,
    phases: Sequence[int],
    seconds: float,
    name: str,
    gate: Barrier,
    out: "Queue[Measured]",
) -> None:
    """Train in each phase of more than `index` workers."""
    torch.set_num_threads(1)
    data = load_search_data(dataset(f"idx:{SUBSET}", Path()))
    call = stretches(config_of(name, data), data, torch.device("cuda", 0), GRAPHED, STEPS)
    for _ in range(WARM_UP_STRETCHES):
        call()
    for workers in phases:
        gate.wait(PATIENCE_S)
        began_s, taken = time.perf_counter(), 0
        while index < workers and time.perf_counter() - began_s < seconds:
            call()
            taken += STEPS
        if taken:
            out.put((workers, taken * BATCH_SIZE / (time.perf_counter() - began_s)))


def measured(
    counts: Sequence[int], turns: int, seconds: float, name: str
) -> dict[int, list[float]]:
    """Images per second of so many workers together, one number for each turn."""
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(max(counts)), context.Queue()
    phases = [count for _ in range(turns) for count in counts]
    crew = [
        context.Process(target=work, args=(index, phases, seconds, name, gate, out), daemon=True)
        for index in range(max(counts))
    ]
    for member in crew:
        member.start()
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(turns):
        for count in counts:
            told = [out.get(timeout=PATIENCE_S) for _ in range(count)]
            assert {workers for workers, _ in told} == {count}
            found[count].append(sum(speed for _, speed in told))
    for member in crew:
        member.join()
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="vitbn")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each phase")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return
    mps = "with" if has_mps() else "without"
    found = measured(args.workers, args.turns, args.seconds, args.model)
    fewest = min(found)
    base = statistics.median(found[fewest])
    print(f"{args.model}, batch {BATCH_SIZE}, {torch.cuda.get_device_name(0)}, {mps} MPS")
    print(
        f"| workers on one GPU | images/s together | range | over {fewest} |",
        "|---|---|---|---|",
        sep="\n",
    )
    for count, speeds in found.items():
        middle = statistics.median(speeds)
        spread = f"{min(speeds):.0f}–{max(speeds):.0f}"
        print(f"| {count} | {middle:.0f} | {spread} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
