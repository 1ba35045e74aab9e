"""A report as one page of HTML that loads nothing and runs nothing: to be read, printed, or attached."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from services.actions.plain_text import clean
from services.reports.document import Block, Heading, Table, Text

#: What a browser may do with the page, wherever it was saved.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#: In the page itself `frame-ancestors` means nothing.
_POLICY_WITHIN = POLICY.rpartition(";")[0]
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #d0d7de; }
p { white-space: pre-line; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #eaeef2; overflow-wrap: anywhere; }
th { font-weight: 600; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117; } h2, th, td { border-color: #30363d; } }
@media print { body { max-width: none; margin: 0; color: #000; background: #fff; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def as_html(document: Sequence[Block]) -> str:
    """The page."""
    title = next((each.text for each in document if isinstance(each, Heading)), "Report")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY_WITHIN)}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_shown(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(map(_written, document))
        + "\n</body>\n</html>\n"
    )


def _written(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_shown(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{_shown(block.text)}</p>"
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    rows = [*table.rows]
    # One without names of its columns has those of its rows at their beginning.
    if any(table.columns):
        written = [_row([_cell("th", each, "col") for each in table.columns])]
        written += [_row([_cell("td", each) for each in row]) for row in rows]
    else:
        written = [
            _row([_cell("th", first, "row"), *(_cell("td", each) for each in rest)]) for first, *rest in rows
        ]
    return "<table>\n" + "\n".join(written) + "\n</table>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(tag: str, text: str, scope: str = "") -> str:
    said = f' scope="{scope}"' if scope else ""
    return f"<{tag}{said}>{_shown(text)}</{tag}>"


def _shown(text: str) -> str:
    return escape(clean(text))
