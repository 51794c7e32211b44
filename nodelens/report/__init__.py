"""The report of a run: findings computed from its tables, on one page that needs no network."""

from nodelens.report.data import channel_data, table_of
from nodelens.report.findings import Evidence, Findings, KeyNumber, find
from nodelens.report.forms import render_markdown, report_data
from nodelens.report.page import Figure, Page, Part, Table, render_page
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
    "Part",
    "Section",
    "SectionFigure",
    "SectionNumber",
    "SectionTable",
    "Table",
    "channel_data",
    "find",
    "render_markdown",
    "render_page",
    "report_data",
    "section_file",
    "table_of",
]
