"""Studies compared, as a report: what was asked, what was shown, and how it came about."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.errors import InputError
from objectives.data_options import short_name
from study.comparison import TARGET, Cell, cells, pairs, search_rows
from study.comparison_charts import curves_charts, times_chart
from study.comparison_tables import (
    accuracy_verdicts,
    batch_sizes_table,
    cells_table,
    convergence_verdicts,
    pairs_table,
    searches_table,
)
from study.equality import inequalities, refuse, unlike_speeds
from study.errors import IncompleteError, UnequalError, UnknownStudyError
from study.report import Block, Report, Section
from study.report_methods import environment, how_judged
from study.results import StudyResult, read_result, told_apart
from study.search_charts import importances_chart, searches_chart, space_chart
from study.speed_tables import speed_blocks, speed_verdicts
from study.speeds import Speeds
from study.storage import Store
from study.words import counted, ranges


@dataclass(frozen=True)
class Asked:
    """What is to be compared, and how."""

    studies: tuple[str, ...]  # the first is what the others are compared with
    target: float = TARGET  # validation accuracy that counts as converged
    allow_unequal: bool = False
    speeds: Speeds | None = None  # as `measure` kept them


@dataclass(frozen=True)
class Compared:
    """What was read of it."""

    results: tuple[StudyResult, ...]
    sources: Mapping[str, StudyResult]  # searches that fits took their values from, by name
    unequal: tuple[str, ...]
    asked: Asked

    @property
    def is_planned(self) -> bool:
        """Whether these are fits or sweeps, and no searches."""
        return self.results[0].identity.is_planned


def read_compared(store: Store, asked: Asked) -> Compared:
    """Read the studies.

    Raises UnknownStudyError, IncompleteError, UnequalError, or InputError for a stability study.
    """
    results = told_apart([read_result(store, name) for name in asked.studies])
    for result in results:
        if result.identity.kind == "stability":
            raise InputError(
                f"'{result.name}' is a stability study: 'bnvit-study report' tells of these by "
                "themselves; compare fits, sweeps or searches"
            )
    if len({result.identity.is_planned for result in results}) > 1:
        kinds = ", ".join(f"{result.name} is a {result.identity.kind}" for result in results)
        raise UnequalError(f"a search cannot be compared with runs of given values: {kinds}")
    sources = dict(_sources(store, results))
    unequal = (*inequalities(results, sources), *unlike_speeds(results, asked.speeds))
    if not asked.allow_unequal:
        refuse(unequal)
    return Compared(results, sources, unequal, asked)


def report_of(compared: Compared, links: Sequence[tuple[str, str]] = ()) -> Report:
    """The report on studies that were read."""
    models = [result.model for result in compared.results]
    sections = _planned(compared) if compared.is_planned else _searched(compared)
    return Report(
        title=f"{' against '.join(models)} on {short_name(compared.results[0].identity.dataset)}",
        question=_question(compared),
        verdicts=tuple(_verdicts(compared)),
        sections=(*sections, _speed(compared), _methods(compared), environment(compared.results)),
        links=tuple(links),
    )


def _sources(store: Store, results: Sequence[StudyResult]) -> Iterator[tuple[str, StudyResult]]:
    for name in {result.source for result in results if result.source is not None}:
        try:
            yield name, read_result(store, name)
        except (UnknownStudyError, IncompleteError):  # deleted or extended; the comparison says so
            continue


def _question(compared: Compared) -> str:
    first = compared.results[0].identity
    how = {
        "search": "as found by searches of learning rate and batch size",
        "sweep": "trained with the same learning rates and batch sizes",
        "fit": "each trained with its own best learning rate and batch size"
        if compared.results[0].source
        else "trained with given values",
    }
    return (
        f"Which is better on {short_name(first.dataset)}, {how[first.kind]}? "
        f"{counted(first.epochs, 'epoch')} of {first.train_images:,} images, {first.precision}."
    )


def _verdicts(compared: Compared) -> Iterator[str]:
    for line in compared.unequal:
        yield f"UNEQUAL: {line}"
    if compared.is_planned:
        found = pairs(cells(compared.results), compared.asked.target)
        yield from accuracy_verdicts(found)
        yield from convergence_verdicts(found, compared.asked.target)
        yield from _losses(cells(compared.results))
    else:
        yield (
            "accuracy: no verdict: a search trains each configuration once; 'bnvit-study fit "
            f"{compared.results[0].name} --on train+val' trains the best of one with several seeds"
        )
    if compared.asked.speeds is not None:
        yield from speed_verdicts(compared.asked.speeds)
    else:
        yield (
            "speed: not measured; times of an experiment rank nothing, 'bnvit-study measure "
            f"{' '.join(dict.fromkeys(r.identity.model for r in compared.results))}' measures it"
        )


def _losses(found: Sequence[Cell]) -> Iterator[str]:
    """What is known of stability from these runs, and which could not be made."""
    lost = [cell for cell in found if cell.diverged]
    if not lost:
        yield f"stability: none of {sum(len(cell.runs) for cell in found)} runs diverged"
    for cell in found:
        if cell.out_of_memory:
            yield (
                f"memory: {cell.model} ran out of it in {cell.out_of_memory} of {len(cell.runs)} "
                f"runs at lr {cell.lr:.3g}, batch size {cell.batch_size}; these count nowhere"
            )
    for cell in lost:
        yield (
            f"stability: {cell.model} diverged in {cell.diverged} of {len(cell.runs)} runs at lr "
            f"{cell.lr:.3g}, batch size {cell.batch_size}"
        )


def _planned(compared: Compared) -> Iterator[Section]:
    found, target = cells(compared.results), compared.asked.target
    yield Section(
        "Accuracy",
        (
            cells_table(found, target, compared.unequal),
            pairs_table(pairs(found, target), compared.unequal),
        ),
    )
    sizes = {cell.batch_size for cell in found if cell.study == found[0].study}
    if len(sizes) > 1 and found[0].has_validation:
        table = batch_sizes_table(found, target, compared.unequal)
        yield Section("What the batch size buys", (table,))
    yield Section("Curves", tuple(curves_charts(found)))
    if (chart := times_chart(found)) is not None:
        yield Section("Time against learning rate", (chart,))
    of_fits = (compared.sources.get(result.source or "") for result in compared.results)
    if searched := tuple(search for search in of_fits if search is not None):
        yield Section("How each was tuned", tuple(_search_blocks(searched, compared.unequal)))


def _searched(compared: Compared) -> Iterator[Section]:
    yield Section("Searches", tuple(_search_blocks(compared.results, compared.unequal)))


def _search_blocks(results: Sequence[StudyResult], unequal: Sequence[str]) -> Iterator[Block]:
    rows = search_rows(results)
    yield searches_table(rows, unequal)
    yield searches_chart(rows)
    yield space_chart(results)
    if (chart := importances_chart(results)) is not None:
        yield chart


def _speed(compared: Compared) -> Section:
    if compared.asked.speeds is None:
        return Section("Speed", ("Not measured for this report.",))
    return Section("Speed", tuple(speed_blocks(compared.asked.speeds)))


def _methods(compared: Compared) -> Section:
    paragraphs = list(how_judged(compared.results[0].identity))
    if compared.is_planned:
        seeds = ranges({run.seed for run in compared.results[0].runs})
        paragraphs.append(
            f"Seeds {seeds}: runs with the same seed see the same images in the same order, and "
            "are paired. Means and differences have Student's interval; P(better) is the "
            "probability that a run is better than the other model's run with the same seed "
            "(Bouthillier et al. 2021), with the exact interval for normal differences. "
            "With fewer than 5 seeds there are numbers and no verdict."
        )
    return Section("Methods", tuple(paragraphs))
