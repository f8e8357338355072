"""A report as Markdown, JSON and CSV."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from study.report import Block, Report
from study.tabular import Tabular

_NOWHERE: Mapping[str, str] = MappingProxyType({})


def markdown(report: Report, pictures: Mapping[str, str] = _NOWHERE) -> str:
    """Markdown; `pictures`: addresses of the figures' files by name; without one it is left out."""
    lines = [f"# {report.title}", "", report.question, "", "## Verdict", ""]
    lines += [f"- {verdict}" for verdict in report.verdicts]
    for section in report.sections:
        shown = [text for block in section.blocks if (text := _markdown(block, pictures))]
        if shown:
            lines += ["", f"## {section.title}"]
        for text in shown:
            lines += ["", text]
    lines += ["", *(f"- [{text}]({address})" for text, address in report.links)]
    return "\n".join(lines).rstrip() + "\n"


def json_text(report: Report) -> str:
    """Verdicts and tables as JSON."""
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False) + "\n"


def csv(report: Report) -> str:
    """All tables, one below another."""
    return "\n".join(table.to_csv() for table in report.tables)


def as_dict(report: Report) -> dict[str, object]:
    """Verdicts and tables as plain values."""
    return {
        "title": report.title,
        "question": report.question,
        "verdicts": list(report.verdicts),
        "tables": {
            table.name: [dict(zip(table.headings, row, strict=True)) for row in table.rows]
            for table in report.tables
        },
        "notes": {table.name: list(table.notes) for table in report.tables},
        "links": dict(report.links),
    }


def _markdown(block: Block, pictures: Mapping[str, str]) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Tabular):
        return block.to_markdown()
    if block.name not in pictures:
        return ""
    return f"![{block.title}]({pictures[block.name]})\n\n*{block.title}.* {block.caption}".rstrip()
