"""A report as data: the verdict first, then tables, figures, methods and environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from study.charts import Chart
from study.tabular import Tabular

Block = str | Tabular | Chart  # a string is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """All that a reader is told."""

    title: str
    question: str
    verdicts: tuple[str, ...]
    sections: tuple[Section, ...]
    links: tuple[tuple[str, str], ...] = ()  # text and address, as of MLflow's runs

    @property
    def tables(self) -> list[Tabular]:
        """All tables, in order."""
        return [block for block in self._blocks() if isinstance(block, Tabular)]

    @property
    def charts(self) -> list[Chart]:
        """All figures, in order."""
        return [block for block in self._blocks() if isinstance(block, Chart)]

    def to_markdown(self, pictures: Sequence[tuple[Chart, str]] = ()) -> str:
        """The report as Markdown; `pictures`: figures with the addresses of their files."""
        places = {chart.name: place for chart, place in pictures}
        lines = [f"# {self.title}", "", self.question, "", "## Verdict", ""]
        lines += [f"- {verdict}" for verdict in self.verdicts]
        for section in self.sections:
            lines += ["", f"## {section.title}"]
            for block in section.blocks:
                lines += ["", _markdown(block, places)]
        lines += ["", *(f"- [{text}]({address})" for text, address in self.links)]
        return "\n".join(lines).rstrip() + "\n"

    def to_csv(self) -> str:
        """All tables, one below another."""
        return "\n".join(table.to_csv() for table in self.tables)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: verdicts and tables."""
        return {
            "title": self.title,
            "verdicts": list(self.verdicts),
            "tables": {
                table.name: [dict(zip(table.headings, row, strict=True)) for row in table.rows]
                for table in self.tables
            },
            "notes": {table.name: list(table.notes) for table in self.tables},
            "links": dict(self.links),
        }

    def _blocks(self) -> list[Block]:
        return [block for section in self.sections for block in section.blocks]


def _markdown(block: Block, places: dict[str, str]) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Tabular):
        return block.to_markdown()
    caption = f"*{block.title}.* {block.caption}".rstrip()
    return (
        f"![{block.title}]({places[block.name]})\n\n{caption}" if block.name in places else caption
    )
