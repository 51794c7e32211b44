"""A part of the report that a stage tells: what it found, its figures and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nodelens.report.page import Figure, Part, Table

__all__ = ["Chapter"]


@dataclass(frozen=True)
class Chapter:
    """What a stage tells the reader; names stand in backticks.

    `headline` is the finding in a sentence without its full stop, which heads the page where no
    other does, and stands among the findings of the run. `sentences` say more, `how` says how to
    read the figures, `tables` stand under their names.
    """

    name: str
    title: str
    headline: str
    sentences: Sequence[str]
    how: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict)

    def part(self, figures: Sequence[Figure]) -> Part:
        """Return the chapter as a part of the page, with the figures of its stage."""
        return Part(
            anchor=f"chapter-{self.name}",
            title=self.title,
            findings=self.sentences,
            tables=[replace(table, title=name) for name, table in self.tables.items()],
            figures=[replace(figure, caption=figure.alt) for figure in figures],
            how=self.how,
        )
