"""The report of a run: findings computed from its tables, on one page that needs no network."""

from nodelens.report.findings import Evidence, Findings, KeyNumber, find
from nodelens.report.page import Figure, Page, Table, render_page
from nodelens.report.sections import (
    Section,
    SectionFigure,
    SectionNumber,
    SectionTable,
    section_file,
)

__all__ = [
    "Evidence",
    "Figure",
    "Findings",
    "KeyNumber",
    "Page",
    "Section",
    "SectionFigure",
    "SectionNumber",
    "SectionTable",
    "Table",
    "find",
    "render_page",
    "section_file",
]
