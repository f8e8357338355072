"""`make chaos`: storms over whole studies until so many workers have been killed."""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from tests.chaos.play import play
from tests.chaos.storm import Weather

TIMEOUT_S = 3600.0  # of a round
PRUNERS = ("none", "asha")  # by round: trials that last, and verdicts that outlive their workers


def main() -> None:
    """Play rounds of a study each; exits with 1 where anything was lost, surplus or double."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="go on until so many; 0: one round")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, help="of each round's study; 40, or 300 with --kills")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--logs", type=Path, help="folder for what the processes said, by round")
    asked = parser.parse_args()
    trials = asked.trials or (300 if asked.kills else 40)
    faults: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    rounds = 0
    began_s = time.monotonic()
    while rounds == 0 or totals["kills"] < asked.kills:
        most = asked.kills - totals["kills"] if asked.kills else None
        weather = Weather(most_kills=most)
        logs = asked.logs / f"round-{rounds + 1}" if asked.logs else None
        pruner = PRUNERS[rounds % len(PRUNERS)]
        storm, verdict = play(
            weather, asked.workers, trials, asked.epochs, rounds, TIMEOUT_S, logs, pruner
        )
        rounds += 1
        totals.update(storm.counts)
        totals.update(ended=verdict.ended, failed=verdict.failed, rungs=verdict.rungs)
        faults.update(verdict.faults)
        told = {"round": rounds, "after_s": round(time.monotonic() - began_s), **totals}
        print(json.dumps({**told, "faults": faults, "notes": verdict.notes}), flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
