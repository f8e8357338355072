"""The most memory that a process takes which trains, or evaluates, in one way; prints MiB.

    python bench/peak_memory.py --model vitbn --way ours --data-dir FOLDER

Hardware: any CPU under Linux.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from contenders import evaluation_call, training_call

from objectives.data import load_search_data
from objectives.datasets import dataset

STEPS = 10


def main() -> None:
    """Do it once and print what the kernel counted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="vitbn")
    parser.add_argument("--way", default="ours")
    parser.add_argument("--evaluate", action="store_true", help="instead of training")
    parser.add_argument("--data-dir", type=Path, required=True)
    args = parser.parse_args()
    device = torch.device("cpu")
    data = load_search_data(dataset("mnist", args.data_dir))
    if args.evaluate:
        call = evaluation_call(args.way, args.model, data, device)
    else:
        call = training_call(args.way, args.model, data, device, STEPS)
    call()
    print(_peak_mib())


def _peak_mib() -> int:
    """The most memory that was resident, as Linux counts it for this program alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) // 1024


if __name__ == "__main__":
    main()
