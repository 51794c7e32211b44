"""Tables as notebooks show them: escaped, and no longer than a screen or two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["MOST_ROWS", "html_table"]

MOST_ROWS = 40


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a table as HTML; rows beyond the first 40 are counted in a line below it.

    >>> html_table(["layer"], [["<fc>"]])
    '<table><thead><tr><th>layer</th></tr></thead><tbody><tr><td>&lt;fc&gt;</td></tr></tbody></table>'
    """
    listed = [_row("td", row) for row in rows]
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    head, body = _row("th", header), "".join(listed[:MOST_ROWS])
    table = f"<table>{told}<thead>{head}</thead><tbody>{body}</tbody></table>"
    more = len(listed) - MOST_ROWS
    return table + (f"<p>and {more} more rows</p>" if more > 0 else "")


def _row(tag: str, cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_cell(c))}</{tag}>" for c in cells) + "</tr>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)
