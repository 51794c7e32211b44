"""One HTML page that holds everything it shows: no request leaves it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nodelens.report.findings import Findings

if TYPE_CHECKING:
    from nodelens.report.chapter import Chapter

__all__ = ["Figure", "Page", "Table", "render_page"]

_BACKTICKS = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Figure:
    """A figure as SVG, what it shows, what it says, and its width in CSS pixels."""

    name: str
    svg: bytes
    alt: str
    width: int

    @property
    def source(self) -> str:
        """Return the picture as a `data:` address, which keeps its styles and ids to itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A small table with a heading a column; the first cell of a row is its heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    `channels` is `{"scores": [{"name", "unit", "shown"}], "layers": [...], "rows": [[layer number,
    channel, score, ...]]}`; `omitted` channels are left out of it for size.
    """

    title: str
    kind: str
    findings: Findings
    curves: Sequence[Figure]
    heatmap: Figure | None
    correlation: Figure | None
    histograms: Sequence[Figure]
    channels: dict[str, Any]
    accuracies: Table | None
    layer_means: Table
    protocol: dict[str, str]
    facts: dict[str, str]
    stages: Table
    config: str
    omitted: int = 0
    files: Sequence[tuple[str, str]] = field(default_factory=list)
    chapters: Sequence[Chapter] = ()


def render_page(page: Page) -> str:
    """Return the page as HTML; every text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nodelens.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html.j2").render(page=page)


def _prose(text: str) -> Any:
    """Return escaped text with names in backticks set as code."""
    from markupsafe import Markup, escape

    parts = _BACKTICKS.split(text)
    marked = [
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    ]
    return Markup("").join(marked)


def _breakable(name: str) -> Any:
    """Return an escaped name that may wrap after underscores and dots."""
    from markupsafe import Markup, escape

    pieces = [escape(piece) for piece in re.split(r"(?<=[_.])", name)]
    return Markup("<wbr>").join(pieces)
