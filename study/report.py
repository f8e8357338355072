"""A report as data: the verdict first, then tables, figures, methods and environment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from study.charts import Chart
from study.tabular import Tabular

Block = str | Tabular | Chart  # a string is a paragraph


def named(blocks: Iterable[Block], prefix: str) -> Iterator[Block]:
    """Blocks whose names begin with `prefix`, as where the like stands twice in a report."""
    for block in blocks:
        yield block if isinstance(block, str) else replace(block, name=f"{prefix}-{block.name}")


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

    def __post_init__(self) -> None:
        for names in ([each.name for each in self.tables], [each.name for each in self.charts]):
            assert len(set(names)) == len(names), f"one of these names stands twice: {names}"

    def _blocks(self) -> list[Block]:
        return [block for section in self.sections for block in section.blocks]
