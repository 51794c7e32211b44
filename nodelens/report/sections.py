"""The part of the report that a stage leaves behind: sentences, numbers, tables and figures."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nodelens.errors import OutputError, nearest

__all__ = ["SECTIONS", "Section", "SectionFigure", "SectionNumber", "SectionTable", "section_file"]

SECTIONS = "analysis/sections"

Question = Literal["matter", "redundant", "without"]
"""Which channels matter, which are redundant, what happens without them."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SectionNumber(_Part):
    """A number worth a large font on the first screen, what it is, and how far to trust it."""

    value: str
    label: str
    note: str = ""


class SectionTable(_Part):
    """A CSV file of the run, shown as a table that sorts and filters."""

    file: str
    title: str = ""
    note: str = ""


class SectionFigure(_Part):
    """A figure of the run: `file` without its suffix (SVG is preferred to PNG), and what it shows.

    `alt` describes the picture to those who do not see it, `caption` says what it tells, and
    `width` is in CSS pixels.
    """

    file: str
    alt: str
    caption: str = ""
    width: int = 560


class Section(_Part):
    """What a stage has to say. Names in backticks are set as code.

    `sentence` is the finding; with `answers` it also stands on the first screen, under the question
    that it answers. `findings` are further sentences, `how` says how the numbers came about.
    `channels` names a CSV file with columns `layer` and `channel`: its other columns, numbers or
    labels, join the table of all channels.
    """

    title: str = Field(min_length=1)
    sentence: str = ""
    answers: Question | None = None
    findings: tuple[str, ...] = ()
    numbers: tuple[SectionNumber, ...] = ()
    tables: tuple[SectionTable, ...] = ()
    figures: tuple[SectionFigure, ...] = ()
    channels: str | None = None
    how: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return the section as plain data, for its JSON file."""
        return self.model_dump(mode="json")

    @classmethod
    def from_plain(cls, data: Any, source: str) -> Section:
        """Return the section in the JSON file `source`; OutputError for what is not one."""
        try:
            return cls.model_validate_json(data) if isinstance(data, str) else cls(**data)
        except ValidationError as failure:
            raise OutputError(f"{source!r} is no section of a report: {_told(failure)}") from None
        except TypeError:
            raise OutputError(
                f"{source!r} is no section of a report: expected an object, got {data!r:.80}"
            ) from None

    @property
    def files(self) -> list[str]:
        """Return the files of the run that the section shows; figures without their suffix."""
        tables = [table.file for table in self.tables]
        figures = [figure.file for figure in self.figures]
        return [*tables, *figures, *([self.channels] if self.channels else [])]


def section_file(stage: str) -> str:
    """Return the name of the file in which the section of `stage` is looked for.

    >>> section_file("clusters")
    'analysis/sections/clusters.json'
    """
    return f"{SECTIONS}/{stage}.json"


def _told(failure: ValidationError) -> str:
    first = failure.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}, got {first['input']!r:.80}"
    known = _PARTS.get(str(first["loc"][0]), Section) if len(first["loc"]) > 1 else Section
    names = list(known.model_fields)
    wrong = str(first["loc"][-1])
    return f"unknown key {place!r}{nearest(wrong, names)}; expected {', '.join(names)}"


_PARTS: dict[str, type[_Part]] = {
    "numbers": SectionNumber,
    "tables": SectionTable,
    "figures": SectionFigure,
}
