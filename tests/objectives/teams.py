"""Teams of two processes, forked from one that has imported everything."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from objectives.team import Team, team_of
from tests.conftest import CPU
from tests.integration.forks import call
from tests.integration.processes import steady_port

SIZE = 2
TIMEOUT_S = 20.0  # of a collective
END_S = 60.0  # of a process

Part = Callable[..., Any]
"""What a process does, a function of a module: it is given its team, and what the test gives."""


def by_team(part: Part, *given: object) -> list[Any]:
    """What `part` returned in each process of a team, in order of rank; None where it died."""
    port = steady_port()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{rank}.pt" for rank in range(SIZE)]
        processes = [call(_be, part, rank, port, path, *given) for rank, path in enumerate(paths)]
        for process in processes:
            process.join(END_S)
            if process.exitcode is None:
                process.kill()
        return [torch.load(p, weights_only=False) if p.exists() else None for p in paths]


def _be(part: Part, rank: int, port: int, path: Path, *given: object) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with team_of(rank, SIZE, CPU, TIMEOUT_S) as team:
        assert isinstance(team, Team)
        torch.save(part(team, *given), path)
