"""The sections that the stages of a run left for its report."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nodelens.errors import OutputError
from nodelens.experiments.drawing import file_name, save_figure
from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.report import Figure, Part
from nodelens.report.data import table_of
from nodelens.report.sections import Section, SectionFigure, section_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from nodelens.experiments.stage import Run

__all__ = [
    "Drawing",
    "leave_section",
    "read_sections",
    "section_digests",
    "shown_sections",
    "with_sections",
]


@dataclass(frozen=True)
class Drawing:
    """A figure of a section: its name, what it shows, and the call that draws it."""

    name: str
    alt: str
    draw: Callable[[], Axes]


def leave_section(run: Run, stage: str, drawings: Sequence[Drawing], **told: Any) -> None:
    """Draw the figures of a stage's section and write it; `told` are the other keys of Section."""
    figures = [_drawn(run, drawing) for drawing in drawings]
    section = Section(**told, figures=tuple(figures))
    run.folder.write_json(section_file(stage), section.to_plain())


def _drawn(run: Run, drawing: Drawing) -> SectionFigure:
    file = f"figures/{file_name(drawing.name)}"
    width = save_figure(run, file, drawing.draw)
    return SectionFigure(file=file, alt=drawing.alt, caption=drawing.alt, width=width)


def read_sections(folder: RunFolder) -> dict[str, Section]:
    """Return the sections of the stages that finished, by stage, in the order they ran.

    A section that an earlier run left in the folder is not among them. Raises OutputError for a
    file that is no section.
    """
    stages = folder.read_json(PROVENANCE)["stages"] if folder.has(PROVENANCE) else {}
    return {
        name: Section.from_plain(folder.read_json(section_file(name)), section_file(name))
        for name, entry in stages.items()
        if entry["status"] == "finished" and section_file(name) in entry["files"]
    }


def section_digests(folder: RunFolder) -> dict[str, str]:
    """Return the digest of every section and of the tables and figures that it shows."""
    names = []
    for stage, section in read_sections(folder).items():
        names += [section_file(stage), *section.files]
        names += [f"{figure.file}{kind}" for figure in section.figures for kind in (".svg", ".png")]
    digests = {name: folder.digest(name) for name in names}
    return {name: digest for name, digest in digests.items() if digest is not None}


def shown_sections(folder: RunFolder) -> list[Part]:
    """Return the sections with their tables and figures read in, ready for the page.

    Raises OutputError for a file that a section names and the run does not have.
    """
    return [
        Part(
            anchor="part-" + re.sub(r"[^A-Za-z0-9_-]", "-", stage),
            title=section.title,
            sentence=section.sentence,
            answers=section.answers,
            findings=section.findings,
            numbers=[(number.value, number.label, number.note) for number in section.numbers],
            tables=[
                table_of(folder.read_table(table.file), **table.model_dump())
                for table in section.tables
            ],
            figures=[_figure(folder, figure) for figure in section.figures],
            how=section.how,
        )
        for stage, section in read_sections(folder).items()
    ]


def with_sections(channels: pd.DataFrame, folder: RunFolder) -> pd.DataFrame:
    """Return the table of channels with the columns that sections add to it.

    Raises OutputError for a table that has no `layer` and `channel`, or a channel twice.
    """
    place = ["layer", "channel"]
    for section in read_sections(folder).values():
        if section.channels is None:
            continue
        table = folder.read_table(section.channels)
        if not set(place) <= set(table) or table.duplicated(place).any():
            raise OutputError(
                f"{section.channels!r} of section {section.title!r}: expected columns 'layer' and"
                f" 'channel', each channel once; got columns {', '.join(map(str, table))}"
            )
        known = [name for name in table if name in place or name not in channels]
        channels = channels.merge(table[known], on=place, how="left", validate="m:1")
    return channels


def _figure(folder: RunFolder, figure: SectionFigure) -> Figure:
    kinds = {".svg": "image/svg+xml", ".png": "image/png"}
    there = [suffix for suffix in kinds if folder.has(figure.file + suffix)]
    if not there:
        raise OutputError(
            f"a section names the figure {figure.file!r}, but the run has neither"
            f" {figure.file + '.svg'!r} nor {figure.file + '.png'!r}; expected"
            f" `nodelens resume {folder.root}` first"
        )
    picture = folder.path(figure.file + there[0]).read_bytes()
    return Figure(
        name=figure.file,
        picture=picture,
        alt=figure.alt,
        width=figure.width,
        caption=figure.caption,
        file=figure.file,
        kind=kinds[there[0]],
    )
