"""The gallery shows every figure, with the call that makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodelens import figures
from nodelens.errors import InvalidValueError
from nodelens.figures import plot_intervals
from projects.figure_gallery.entries import ENTRIES
from projects.figure_gallery.measure import _studies
from tests.figures.drawn import points

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_figure_is_in_the_gallery():
    called = {entry.call.partition("(")[0] for entry in ENTRIES}
    assert called == {name for name in figures.__all__ if name.startswith("plot_")}


def test_the_page_shows_every_entry_with_a_small_image():
    page = (DOCS / "figures.md").read_text("utf-8")
    for entry in ENTRIES:
        assert f"`{entry.call}`" in page and entry.text in page, entry.name
        assert (DOCS / "images" / f"figure-{entry.name}.png").stat().st_size < 60_000, entry.name


def test_estimates_stand_on_their_intervals_the_first_on_top():
    ax = plot_intervals({"a": (0.5, 0.25, 0.75), "b": (0.0, -1.0, 1.0)}, controls=["b"])
    spans = [line.get_xydata().tolist() for line in ax.get_lines()[1:]]
    assert [[0.25, 1], [0.75, 1]] in spans and [[-1, 0], [1, 0]] in spans and [[0.5, 1]] in spans
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"] and points(ax) == {}
    with pytest.raises(InvalidValueError, match="no estimates to draw"):
        plot_intervals({})


def test_the_tables_that_are_drawn_are_in_the_repository():
    assert all(len(table) for table in _studies().values())
