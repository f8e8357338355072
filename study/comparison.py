"""Experiments side by side: variants at equal values, or each at its own best, seed by seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from objectives.intervals import Interval
from objectives.outcome import Outcome
from study.plan import Configuration
from study.results import RunResult, StudyResult
from study.statistics import Comparison, best_of, compared, mean_interval

TARGET = 0.97  # validation accuracy, the article's yardstick of convergence


@dataclass(frozen=True)
class Reached:
    """When a run first came to the target, on the validation split."""

    epochs: float
    seconds: float  # of training, as it went during the experiment


@dataclass(frozen=True)
class Cell:
    """One model with one configuration, over its seeds."""

    study: str
    model: str
    lr: float
    batch_size: int
    runs: tuple[RunResult, ...]  # by seed
    has_validation: bool = True  # False: validation images were trained on, too

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by seed; a run that diverged has that of guessing."""
        found = {run.seed: _accuracy(run) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def diverged(self) -> int:
        """Runs that stopped being finite."""
        return sum(run.outcome is Outcome.DIVERGED for run in self.runs)

    @property
    def out_of_memory(self) -> int:
        """Runs that the device had no memory for: they say nothing of accuracy."""
        return sum(run.outcome is Outcome.OOM for run in self.runs)

    @property
    def mean(self) -> Interval | None:
        """Of the test accuracies; None for fewer than two."""
        values = list(self.accuracies.values())
        return mean_interval(values) if len(values) > 1 else None

    @property
    def epoch_s(self) -> float | None:
        """Median training time of an epoch, as it went during the experiment."""
        times = [seconds for run in self.runs for seconds in epoch_times_s(run)]
        return median(times) if times else None

    def reached(self, target: float) -> dict[int, Reached]:
        """By seed, of the runs that came to the target."""
        found = {run.seed: _reached(run, target) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclass(frozen=True)
class Pair:
    """A cell against the one of the reference model that it is to be compared with."""

    cell: Cell
    reference: Cell
    accuracy: Comparison | None  # None: fewer than two seeds in common
    epochs_to_target: Comparison | None  # also where not all runs came to it


@dataclass(frozen=True)
class SearchRow:
    """What a search found, and what its trials would have found on average."""

    result: StudyResult
    values: tuple[float, ...]  # of the trials that ended, as far as each was trained

    @property
    def curve(self) -> tuple[float, ...]:
        """Expected best validation accuracy of k of its trials, for each k from 1."""
        return tuple(best_of(self.values, k) for k in range(1, len(self.values) + 1))

    @property
    def running_best(self) -> tuple[float, ...]:
        """The best validation accuracy after each trial, in the order in which they were made."""
        best, found = 0.0, []
        for value in self.values:
            best = max(best, value)
            found.append(best)
        return tuple(found)


def cells(results: Sequence[StudyResult]) -> tuple[Cell, ...]:
    """Every configuration of every planned study."""
    return tuple(
        Cell(
            result.name,
            result.model,
            lr,
            batch_size,
            result.of((lr, batch_size)),
            has_validation=not result.identity.is_joined,
        )
        for result in results
        for lr, batch_size in result.configurations
    )


def pairs(found: Sequence[Cell], target: float = TARGET) -> tuple[Pair, ...]:
    """Each cell of another study against that of the first with the same values.

    Fits have one configuration each, whatever its values. All intervals hold together.
    """
    matched = list(_matched(found))
    return tuple(
        Pair(
            cell,
            reference,
            _accuracies_compared(cell, reference, len(matched)),
            _epochs_compared(cell, reference, target, len(matched)),
        )
        for cell, reference in matched
    )


def search_rows(results: Sequence[StudyResult]) -> tuple[SearchRow, ...]:
    """The searches, each with the values of its trials in the order of their numbers."""
    return tuple(
        SearchRow(result, tuple(value for run in result.runs if (value := _searched(run))))
        for result in results
    )


def best_cells(found: Sequence[Cell]) -> tuple[Cell, ...]:
    """Of each study the cell that validated best, in the order of the studies."""
    chosen: dict[str, Cell] = {}
    for cell in found:
        if cell.study not in chosen or _validated(cell) > _validated(chosen[cell.study]):
            chosen[cell.study] = cell
    return tuple(chosen.values())


def best_by_batch_size(found: Sequence[Cell]) -> tuple[Cell, ...]:
    """Of each study and batch size the cell whose learning rate validated best."""
    chosen: dict[tuple[str, int], Cell] = {}
    for cell in found:
        key = (cell.study, cell.batch_size)
        if key not in chosen or _validated(cell) > _validated(chosen[key]):
            chosen[key] = cell
    return tuple(chosen.values())


def epoch_times_s(run: RunResult) -> list[float]:
    """Training time of each stretch between rungs, scaled to one epoch."""
    points = [(0.0, 0.0), *((rung["epoch"], rung["train_time_s"]) for rung in run.curve)]
    return [
        (later_s - earlier_s) / (end - begin)
        for (begin, earlier_s), (end, later_s) in pairwise(points)
        if end > begin
    ]


def _matched(found: Sequence[Cell]) -> Iterator[tuple[Cell, Cell]]:
    if not found:
        return
    of_first = [cell for cell in found if cell.study == found[0].study]
    by_values: dict[Configuration, Cell] = {(c.lr, c.batch_size): c for c in of_first}
    for cell in found[len(of_first) :]:
        alone = sum(other.study == cell.study for other in found) == 1 == len(of_first)
        reference = of_first[0] if alone else by_values.get((cell.lr, cell.batch_size))
        if reference is not None:
            yield cell, reference


def _accuracies_compared(cell: Cell, reference: Cell, family: int) -> Comparison | None:
    return _compared(cell.accuracies, reference.accuracies, family)


def _epochs_compared(cell: Cell, reference: Cell, target: float, family: int) -> Comparison | None:
    mine, theirs = cell.reached(target), reference.reached(target)
    if len(mine) < len(cell.runs) or len(theirs) < len(reference.runs):
        return None
    return _compared(
        {seed: each.epochs for seed, each in mine.items()},
        {seed: each.epochs for seed, each in theirs.items()},
        family,
    )


def _compared(a: dict[int, float], b: dict[int, float], family: int) -> Comparison | None:
    common = sorted(a.keys() & b.keys())
    if len(common) < 2:
        return None
    return compared([a[seed] for seed in common], [b[seed] for seed in common], family)


def _accuracy(run: RunResult) -> float | None:
    return run.value if run.outcome is Outcome.DIVERGED else run.test_accuracy


def _searched(run: RunResult) -> float | None:
    return run.value if run.outcome is Outcome.DIVERGED else run.val_accuracy


def _reached(run: RunResult, target: float) -> Reached | None:
    for rung in run.curve:
        if rung.get("val_accuracy", 0.0) >= target:
            return Reached(rung["epoch"], rung["train_time_s"])
    return None


def _validated(cell: Cell) -> float:
    """Mean validation accuracy at the end; what diverged counts as nothing."""
    values = [run.val_accuracy or 0.0 for run in cell.runs if run.outcome is Outcome.COMPLETE]
    return sum(values) / max(len(cell.runs), 1)
