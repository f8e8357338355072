"""Tables of models and of studies, for the command line."""

from dataclasses import dataclass

from rich.table import Table

from models.profile import profile
from models.registry import ARTICLE
from models.switches import ImageShape, ViTSwitches
from objectives.data import MNIST_SHAPE, dataset, load_search_data
from study.overview import Overview
from study.settings import Settings


@dataclass(frozen=True)
class ModelRow:
    """One model at one image size."""

    name: str
    norms: str
    dim: int
    heads: int
    depth: int
    parameters: int
    multiply_adds: int  # of one image
    blocks_executed: int


def model_rows(dataset_name: str, settings: Settings) -> list[ModelRow]:
    """All models, profiled by a forward pass at the size of the data set's images."""
    shape = _shape(dataset_name, settings)
    switches = ViTSwitches()
    rows = []
    for variant in ARTICLE.values():
        counted = profile(variant.build(shape, switches), shape)
        rows.append(
            ModelRow(
                variant.name,
                variant.norms,
                switches.dim,
                switches.heads,
                counted.blocks,
                counted.parameters,
                counted.macs,
                counted.blocks_executed,
            )
        )
    return rows


def models_table(rows: list[ModelRow]) -> Table:
    """The models for people."""
    table = plain_table("model", "normalisation")
    for heading in ("dim", "heads", "depth", "parameters", "mult.-adds", "executed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            row.norms,
            str(row.dim),
            str(row.heads),
            str(row.depth),
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e6:.2f} M",
            f"{row.blocks_executed} of {row.depth} blocks",
        )
    return table


def studies_table(studies: list[Overview]) -> Table:
    """The studies for people."""
    table = plain_table("study", "model", "data")
    for heading in ("trials", "best val. accuracy", "epochs' worth"):
        table.add_column(heading, justify="right")
    for seen in studies:
        table.add_row(
            seen.study,
            seen.identity.model,
            seen.identity.dataset,
            f"{len(seen.ended)} of {len(seen.counted)}",
            f"{seen.best.val_accuracy:.2%}" if seen.best and seen.best.val_accuracy else "",
            f"{seen.epochs_trained:.1f}",
        )
    return table


def _shape(dataset_name: str, settings: Settings) -> ImageShape:
    """The data set's shape; MNIST's is known without fetching it."""
    if dataset_name == "mnist":
        return MNIST_SHAPE
    return load_search_data(dataset(dataset_name, settings.data_dir)).shape


def plain_table(*left_headings: str) -> Table:
    """A table without lines; more columns can be added."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in left_headings:
        table.add_column(heading, no_wrap=True)
    return table
