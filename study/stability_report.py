"""What `stability` tells at its end: words and tables, or JSON, and figures in a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import InputError
from study.briefing import next_steps
from study.charts_png import write_png
from study.cli_options import console_on, print_line, print_table
from study.equality import inequalities
from study.overview import Overview
from study.results import read_result
from study.service import Session
from study.stability import Limit, limits
from study.stability_charts import stability_charts
from study.stability_tables import stability_tables
from study.summary import summary


@dataclass(frozen=True)
class StabilityReport:
    """To be called with the studies at their end, or where they were stopped before."""

    as_json: bool
    folder: Path | None  # for figures; None: none are written

    def check(self) -> None:
        """Raise InputError where the folder is something else; it is made at the end."""
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder; name another with -o")

    def __call__(self, sessions: Sequence[Session], seen: Sequence[Overview]) -> None:
        """Tell of the studies; what has not ended is only summed up. Raises InputError."""
        ended = [one.study for one in seen if len(one.ended) == len(one.counted)]
        results = [read_result(sessions[0].store, name) for name in ended]
        found, unequal = limits(results), inequalities(results, {})
        written = self._written(found)
        if self.as_json:
            print(json.dumps(_as_dict(seen, found, unequal), default=str, indent=2))
            return
        console = console_on()
        for one in seen:
            print_line(console, f"{one.study}:")
            for line in summary(one):
                print_line(console, line)
        for line in unequal:
            print_line(console, f"UNEQUAL: {line}")
        for table in stability_tables(found) if found else ():
            print_table(console, table)
        for line in ["", *written, *next_steps(sessions, seen)]:
            print_line(console, line)

    def _written(self, found: Sequence[Limit]) -> list[str]:
        """Write the figures, a line each."""
        if self.folder is None or not found:
            return []
        paths = {self.folder / f"{chart.name}.png": chart for chart in stability_charts(found)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, chart in paths.items():
                write_png(chart, path)
        except OSError as error:
            raise InputError(
                f"cannot write into {self.folder} ({error.strerror or error}); name another "
                "folder and run the command again, which trains nothing anew"
            ) from error
        return [f"figure:   {path}" for path in paths]


def _as_dict(
    seen: Sequence[Overview], found: Sequence[Limit], unequal: Sequence[str]
) -> dict[str, Any]:
    return {
        "unequal": list(unequal),
        "studies": [one.as_dict() for one in seen],
        "stability": [limit.as_dict() for limit in found],
    }
