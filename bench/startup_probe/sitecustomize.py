"""Notes the time at which a process begins to train; Python imports this by itself at its start.

`bench/startup.py` puts this folder on the path of the processes that it measures, so that their
own workers are measured as well.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

TRAINING = "objectives.training"


class _Finder(MetaPathFinder):
    """Has `train` noted once its module is imported, and imports nothing earlier for that."""

    def find_spec(
        self,
        fullname: str,
        _path: Sequence[str] | None,
        _target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that wraps `train`; None for all other modules."""
        if fullname != TRAINING:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            train = module.train

            def noted(*arguments: Any) -> Iterator[Any]:
                with Path(os.environ["BENCH_BEGUN_FILE"]).open("a") as file:
                    file.write(f"{time.time()}\n")
                yield from train(*arguments)

            module.train = noted  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


if "BENCH_BEGUN_FILE" in os.environ:
    sys.meta_path.insert(0, _Finder())
