"""A table of texts, made once and written as what is asked for: terminal, Markdown, HTML, CSV."""

import csv
import io
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Literal

from rich.table import Table
from rich.text import Text

from study.tables import plain_table

_TEXTS = ("verdict", "device", "computed")  # headings of columns that hold no figures
_LONG = 48  # characters, from which the cells of a column are folded
_GAP = 2  # characters between columns
_LEAST_WIDTH = 10  # characters, of a column of a terminal with a long heading


@dataclass(frozen=True)
class Tabular:
    """A table; the first `left` columns are text and stand to the left, the others are figures."""

    name: str  # for files and links
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()  # below it, as what is unequal

    def to_rich(self) -> Table:
        """For a terminal; columns of long texts are folded."""
        table = plain_table()
        for column, heading in enumerate(self.headings):
            widest = len(self._longest(column))
            is_text = self._is_text(column)
            folded = heading if is_text else textwrap.fill(heading, max(widest, _LEAST_WIDTH))
            side: Literal["left", "right"] = "left" if is_text else "right"
            is_long = widest > _LONG
            table.add_column(
                folded,
                justify=side,
                no_wrap=not is_long,
                min_width=_LEAST_WIDTH if is_long else None,
            )
        for row in self.rows:
            table.add_row(*map(Text, row))  # no markup: a name may have brackets
        return table

    @property
    def width(self) -> int:
        """Characters that it takes in a terminal at least."""
        cells = [self._longest(column) for column in range(len(self.headings))]
        parts = [max(heading.split(), key=len, default="") for heading in self.headings]
        widths = [
            _LEAST_WIDTH if len(cell) > _LONG else max(len(cell), len(part))
            for cell, part in zip(cells, parts, strict=True)
        ]
        return sum(widths) + _GAP * len(widths)

    def to_records(self) -> Iterator[str]:
        """Lines, one a cell, with its heading: for where there is no room for columns."""
        longest = max(map(len, self.headings))
        for row in self.rows:
            yield row[0]
            for heading, cell in zip(self.headings[1:], row[1:], strict=True):
                yield f"    {heading:<{longest}}  {cell}".rstrip()

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown, its title and notes as paragraphs."""
        rule = ["---"] * self.left + ["---:"] * (len(self.headings) - self.left)
        lines = [f"**{self.title}**", ""]
        lines += [_markdown_row(row) for row in (self.headings, tuple(rule), *self.rows)]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def to_html(self) -> str:
        """A figure with the table in a box that scrolls by itself where a screen is narrow."""
        head = "".join(f"<th{self._side(i)}>{escape(h)}</th>" for i, h in enumerate(self.headings))
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in self.notes)
        return (
            f'<figure class="table" id="{escape(self.name)}"><figcaption>{escape(self.title)}'
            f'</figcaption><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>{notes}</figure>"
        )

    def to_csv(self) -> str:
        """Its rows under their headings, with the table's name in front of each."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(("table", *self.headings))
        writer.writerows((self.name, *row) for row in self.rows)
        return written.getvalue()

    def _cells(self, row: tuple[str, ...]) -> str:
        return "".join(f"<td{self._side(i)}>{escape(cell)}</td>" for i, cell in enumerate(row))

    def _side(self, column: int) -> str:
        if len(self._longest(column)) > _LONG:
            return ' class="long"'
        return "" if self._is_text(column) else ' class="figure"'

    def _is_text(self, column: int) -> bool:
        return column < self.left or self.headings[column] in _TEXTS

    def _longest(self, column: int) -> str:
        return max((row[column] for row in self.rows), key=len, default="")


def _markdown_row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
