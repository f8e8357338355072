"""Tables for the command line."""

from rich.table import Table

from study.overview import Overview


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


def plain_table(*left_headings: str) -> Table:
    """A table without lines; more columns can be added."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in left_headings:
        table.add_column(heading, no_wrap=True)
    return table
