"""The doctor's findings for people."""

from rich.table import Table
from rich.text import Text

from study.finding import Finding


def findings_table(findings: list[Finding]) -> Table:
    """A row each: ok or bad, of what, and what to do about a bad one."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=30)
    table.add_column(overflow="fold")
    for finding in findings:
        mark = Text("ok", style="green") if finding.is_good else Text("bad", style="bold red")
        message = Text(finding.message)
        if finding.advice and not finding.is_good:
            message.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(mark, Text(finding.subject), message)
    return table
