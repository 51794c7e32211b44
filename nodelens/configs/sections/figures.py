"""The section `figures`: what the figures of a run are written as."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from nodelens.configs.sections.base import Section

__all__ = ["FiguresConfig"]


class FiguresConfig(Section):
    """The files of figures."""

    formats: Annotated[
        tuple[Literal["png", "svg", "pdf"], ...], Strict(False), Field(min_length=1)
    ] = ("png", "svg")
    """`png`, `svg`, `pdf`; SVG is written in any case, as the report shows it."""
