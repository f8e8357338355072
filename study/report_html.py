"""A report as one HTML file: opens offline, on a phone, in print, light and dark."""

from html import escape

from study.charts_plotly import fragment, head
from study.report import Block, Report, Section
from study.tabular import Tabular

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --faint: #5c5c5c; --back: #ffffff;
  --box: #f4f4f2; --line: #d9d9d6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e6; --faint: #a5a5a2; --back: #161617; --box: #222224; --line: #3a3a3d; }
}
@media print { :root { --text: #000; --faint: #444; --back: #fff; --box: #fff; --line: #bbb; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line); }
a { color: inherit; }
.verdict { background: var(--box); border-left: 4px solid #0072b2; padding: 0.6rem 1rem; }
.verdict ul { margin: 0.3rem 0; padding-left: 1.1rem; }
.verdict li { margin: 0.35rem 0; }
.unequal { border-color: #d55e00; }
figure { margin: 1.4rem 0; }
figcaption { font-weight: 600; margin-bottom: 0.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid var(--line); font-weight: 600; max-width: 9rem; }
td { border-bottom: 1px solid var(--line); white-space: nowrap; }
td:last-child { white-space: normal; min-width: 8rem; }
.figure { text-align: right; }
td.long { white-space: normal; min-width: 14rem; }
.note, .chart-caption, footer { color: var(--faint); font-size: 0.87rem; }
@media print { figure, .verdict { break-inside: avoid; } .scroll { overflow: visible; }
  table { font-size: 0.65rem; }
  .chart-plot { zoom: 0.6; } /* drawn for the screen: from its widest column to that of A4 */ }
"""


def html(report: Report) -> str:
    """The whole page; nothing in it is fetched from elsewhere."""
    title = escape(report.title)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # or a browser asks for one
            f"<title>{title}</title><style>{STYLE}</style>",
            head() if report.charts else "",
            f"</head><body><h1>{title}</h1><p>{escape(report.question)}</p>",
            _verdict(report),
            *(_section(section) for section in report.sections),
            _links(report),
            "</body></html>\n",
        ]
    )


def _verdict(report: Report) -> str:
    said = "".join(f"<li>{escape(line)}</li>" for line in report.verdicts)
    unequal = " unequal" if any("UNEQUAL" in line for line in report.verdicts) else ""
    return f'<div class="verdict{unequal}"><b>Verdict</b><ul>{said}</ul></div>'


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f"<section><h2>{escape(section.title)}</h2>\n{blocks}</section>"


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    return block.to_html() if isinstance(block, Tabular) else fragment(block)


def _links(report: Report) -> str:
    if not report.links:
        return ""
    items = "".join(
        f'<li><a href="{escape(address)}">{escape(text)}</a></li>' for text, address in report.links
    )
    return f"<footer><h2>Where the numbers come from</h2><ul>{items}</ul></footer>"
