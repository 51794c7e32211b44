"""The report of a run: findings computed from its tables, on one page that needs no network."""

from nodelens.report.chapter import Chapter
from nodelens.report.findings import Evidence, Findings, KeyNumber, find
from nodelens.report.page import Figure, Page, Table, render_page

__all__ = [
    "Chapter",
    "Evidence",
    "Figure",
    "Findings",
    "KeyNumber",
    "Page",
    "Table",
    "find",
    "render_page",
]
