"""Stability studies as a report: limits first, then tables and figures."""

from collections.abc import Iterator, Sequence

from objectives.data_options import short_name
from study.comparison_tables import unequal_notes
from study.equality import inequalities
from study.report import Report, Section
from study.report_methods import environment
from study.results import StudyResult
from study.stability import Limit, limits
from study.stability_charts import stability_charts
from study.stability_tables import stability_tables
from study.words import counted

_METHODS = (
    "A grid of learning rates, then steps halfway on the logarithmic scale between the largest at "
    "which every seed stayed finite and the smallest above it at which any diverged. Diverged is a "
    "loss, gradient or weight that is not finite. The test images are not read."
)


def stability_page(results: Sequence[StudyResult], links: Sequence[tuple[str, str]] = ()) -> Report:
    """The report on stability studies that have ended."""
    found, first = limits(results), results[0].identity
    models = dict.fromkeys(limit.model for limit in found)
    return Report(
        title=f"Stability of {', '.join(models)} on {short_name(first.dataset)}",
        question="Up to which learning rate does training stay finite? "
        f"{counted(first.epochs, 'epoch')} of {first.train_images:,} images, {first.precision}.",
        verdicts=(*unequal_notes(inequalities(results, {})), *map(_told, found)),
        sections=(*_sections(found), environment(results)),
        links=tuple(links),
    )


def _told(limit: Limit) -> str:
    where = f"{limit.model}, batch size {limit.batch_size}"
    low, high = limit.ends.low, limit.ends.high
    above = "none above it was seen to diverge" if high is None else f"not at {high:.3g}"
    if low is None:
        return f"{where}: no learning rate was stable, {above}"
    return f"{where}: stable up to lr {low:.3g}, {above}"


def _sections(found: Sequence[Limit]) -> Iterator[Section]:
    first, *others = stability_tables(found)
    yield Section("Limits", (first,))
    yield Section("Figures", stability_charts(found))
    yield Section("Learning rates and runs", tuple(others))
    yield Section("Methods", (_METHODS,))
