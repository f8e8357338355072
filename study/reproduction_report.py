"""A reproduction as a report: each claim of a source with ours beside it, and its mark."""

from collections import Counter
from collections.abc import Iterator, Sequence

from study.claims import STATUSES, Evidence, Finding, findings
from study.comparison import cells, search_rows
from study.comparison_charts import curves_charts, times_chart
from study.report import Block, Report, Section, named
from study.reproduction import SOURCE_PARTS, Reproduction, claims_of
from study.results import StudyResult
from study.search_charts import searches_chart
from study.speed_tables import speed_blocks
from study.tabular import Tabular

_TITLES = {
    "article": "the article on ViT, ViTBNFFN and ViTBN",
    "blog": "the blog on DeiT and Swin with BatchNorm",
    "tiny-imagenet": "transfer to Tiny-ImageNet",
}
_MARKS = (
    "A mark is computed: confirmed or refuted where the interval of what was measured lies wholly "
    "inside or outside of what is claimed, undecided where it does not or where the budget was "
    "smaller than the source's, not run where there is nothing to judge by."
)


_ASKED = "All parts with this budget, what earlier commands ran of it included: "


def reproduction_report(asked: Reproduction, evidence: Evidence) -> Report:
    """All claims of the source, judged by what there is."""
    found = findings(claims_of(asked.source), evidence)
    return Report(
        title=f"Reproduction: {_TITLES[asked.source]}",
        question="What of it holds, measured here?",
        verdicts=tuple(_verdicts(found)),
        sections=(
            *(Section(place.capitalize(), (_table(place, found),)) for place in _places(found)),
            *_figures(evidence),
            Section("Methods", (_MARKS, f"{_ASKED}{asked.command(*SOURCE_PARTS[asked.source])}")),
        ),
    )


def _verdicts(found: Sequence[Finding]) -> Iterator[str]:
    """The counts, and the claims that the source stands or falls with."""
    counts = Counter(one.status for one in found)
    yield f"of {len(found)} claims " + ", ".join(f"{counts[mark]} {mark}" for mark in STATUSES)
    for one in found:
        if one.claim.is_headline and one.status != "not run":
            yield f"{one.status}: {one.claim.text}: {one.judgement.reason}"


def _places(found: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(one.claim.place for one in found))


def _table(place: str, found: Sequence[Finding]) -> Tabular:
    return Tabular(
        name="".join(c if c.isalnum() else "-" for c in place),
        title=f"Claims: {place}",
        headings=("claim", "published", "ours", "mark", "reason", "budget"),
        rows=tuple(_row(one) for one in found if one.claim.place == place),
        left=6,
    )


def _row(one: Finding) -> tuple[str, ...]:
    told = one.judgement
    return (one.claim.text, one.claim.published, told.ours, told.status, told.reason, told.budget)


def _figures(evidence: Evidence) -> Iterator[Section]:
    own = "Speed: steps alone,"
    for prefix, title, speeds in (
        ("loop", "Speed: the article's own loop", evidence.article_speeds),
        ("steps", f"{own} all blocks", evidence.own_speeds),
        ("one-block", f"{own} one block in the BatchNorm models", evidence.own_one_block),
        *((s.models[0], f"Inference: {s.models[0]}", s) for s in evidence.inference),
    ):
        if speeds is not None:
            yield Section(title, tuple(named(speed_blocks(speeds), prefix)))
    if evidence.sweeps:
        yield Section("Figures 3 to 6: all blocks", tuple(_curves(evidence.sweeps, "all-blocks")))
    if evidence.one_block:
        yield Section("The same with one block", tuple(_curves(evidence.one_block, "one-block")))
    elif evidence.sweeps:
        yield Section("The same with one block", ("Not run: --only experiment1 trains it.",))
    if evidence.searches:
        yield Section("Figure 7", (searches_chart(search_rows(evidence.searches)),))
    if evidence.fits:
        yield Section("Figure 8", tuple(_curves(evidence.fits, "tuned")))


def _curves(results: Sequence[StudyResult], name: str) -> Iterator[Block]:
    """Curves and times; charts of several sets of studies stand in one page, so names differ."""
    found = cells(results)
    times = times_chart(found)
    yield from named((*curves_charts(found), *([times] if times else [])), name)
