"""One HTML page that holds everything it shows: no request leaves it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import chain
from typing import Any

from nodelens.report.findings import QUESTIONS, Findings

__all__ = ["Figure", "Page", "Part", "Table", "render_page"]

_BACKTICKS = re.compile(r"`([^`]*)`")
_NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?[\d,]*\.?\d+(e[-+]?\d+)?\s?%?", re.IGNORECASE)
_MISSING = {
    "matter": "No score of this run says which channels matter; `taylor_saliency` among its lenses"
    " would.",
    "redundant": "Not measured: `average_redundancy` among the lenses would say what channels"
    " share.",
    "without": "Nothing was silenced in this run; a `sensitivity` section would say what it costs.",
}


@dataclass(frozen=True)
class Figure:
    """A figure: its bytes, what it shows, its width in CSS pixels, what it tells and its file.

    `kind` is the picture's media type, `file` its name in the run directory without suffix.
    """

    name: str
    picture: bytes
    alt: str
    width: int
    caption: str = ""
    file: str = ""
    kind: str = "image/svg+xml"

    @property
    def source(self) -> str:
        """Return the picture as a `data:` address, which keeps its styles and ids to itself."""
        return f"data:{self.kind};base64," + base64.b64encode(self.picture).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table with a heading a column; the first cell of a row is its heading.

    `omitted` rows are left out for size; they are in `file`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    file: str = ""
    omitted: int = 0

    @cached_property
    def numeric(self) -> list[bool]:
        """Return for every column whether it holds numbers only."""
        columns = [[row[i] for row in self.rows if row[i]] for i in range(len(self.columns))]
        return [bool(cells) and all(map(_NUMBER.fullmatch, cells)) for cells in columns]


@dataclass(frozen=True)
class Part:
    """What a stage has to say, ready to be shown; `anchor` is unique on the page."""

    anchor: str
    title: str
    sentence: str = ""
    answers: str | None = None
    findings: Sequence[str] = ()
    numbers: Sequence[tuple[str, str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    how: str = ""


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    `channels` is what `channel_data` returns; `omitted` channels are left out of it for size.
    `parts` are what further stages found.
    """

    title: str
    kind: str
    findings: Findings
    curves: Sequence[Figure]
    heatmap: Figure | None
    correlation: Figure | None
    channels: Mapping[str, Any]
    accuracies: Table | None
    layer_means: Table
    protocol: Mapping[str, str]
    facts: Mapping[str, str]
    stages: Table
    config: str
    omitted: int = 0
    parts: Sequence[Part] = ()
    files: Sequence[tuple[str, str]] = field(default_factory=list)

    def answers(self) -> list[dict[str, Any]]:
        """Return for every question its key numbers and sentences, those of parts included."""
        found = []
        for key, question in QUESTIONS.items():
            said = [part.sentence for part in self.parts if part.answers == key and part.sentence]
            sentences = [*self.findings.answers.get(key, []), *said]
            numbers = [number for number in self.findings.numbers if number.answers == key]
            known = sentences or numbers
            found.append(
                {
                    "key": key,
                    "question": question,
                    "numbers": numbers,
                    "sentences": sentences if known else [_MISSING[key]],
                }
            )
        return found

    def others(self) -> list[str]:
        """Return the findings that neither answer a question nor stand beside a figure."""
        told = {*chain(*self.findings.answers.values()), *self.findings.readings.values()}
        return [sentence for sentence in self.findings.sentences if sentence not in told]


def render_page(page: Page) -> str:
    """Return the page as HTML; every text in it is escaped, and only its own script runs."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nodelens.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters["prose"] = _prose
    environment.filters["breakable"] = _breakable
    style = _template("page.css")
    script = _template("page.js") + _template("channels.js")
    return environment.get_template("page.html.j2").render(
        page=page, style=style, script=script, policy=_policy([script], [style])
    )


def _template(name: str) -> str:
    return files("nodelens.report").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """Return a Content-Security-Policy: nothing is fetched, only what is here runs."""
    return (
        f"default-src 'none'; img-src data:; script-src {_hashes(scripts)};"
        f" style-src {_hashes(styles)}; base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


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
