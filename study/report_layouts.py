"""A report in the layout that was asked for."""

from collections.abc import Sequence
from pathlib import Path

from study.blog_layout import blog_report, read_outside
from study.comparison_report import Asked, read_compared, report_of
from study.errors import UnequalError
from study.report import Report
from study.results import read_result, told_apart
from study.settings import Settings
from study.stability_page import stability_page
from study.storage import Store
from study.studies import show_study
from study.ui_links import links_of


def laid_out(
    store: Store, settings: Settings, asked: Asked, layout: str, outside: Path | None
) -> Report:
    """The report on studies: a comparison, the limits of stability, or the blog's tables.

    Raises UnknownStudyError, IncompleteError, UnequalError, InputError.
    """
    if layout == "comparison" and _are_of_stability(store, asked.studies):
        ended = told_apart([read_result(store, name) for name in asked.studies])
        return stability_page(ended, tuple(links_of(settings, ended)))
    if layout == "comparison":
        compared = read_compared(store, asked)
        return report_of(compared, tuple(links_of(settings, compared.results)))
    told = None if outside is None else read_outside(outside)
    results = [read_result(store, name) for name in asked.studies]
    for result in results:
        if not result.identity.is_tested:
            raise UnequalError(
                f"{result.name} is a {result.identity.kind}; --layout blog lists fits and sweeps"
            )
        if result.identity.is_joined and len(result.configurations) > 1:
            raise UnequalError(
                f"{result.name} trained on the validation images, too, so that nothing chooses "
                "which of its values stand for it; --layout blog wants a fit, or a sweep --on train"
            )
    return blog_report(results, asked.speeds, told, tuple(links_of(settings, results)))


def _are_of_stability(store: Store, names: Sequence[str]) -> bool:
    return all(show_study(store, name).identity.kind == "stability" for name in names)
