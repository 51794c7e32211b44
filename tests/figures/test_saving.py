"""Figures written to files: three formats, text as text, the same bytes, nothing left open."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from nodelens.errors import InvalidValueError
from nodelens.figures import plot_depth, plot_scatter_matrix, save_figure
from nodelens.figures.style import COLOURS


def drawn():
    return plot_depth({"conv": 1.0, "fc": 2.0}, name="top share")


@pytest.mark.parametrize(
    ("kind", "begins", "holds"),
    [
        ("png", b"\x89PNG", b"IHDR"),
        ("svg", b"<?xml", b">top share</text>"),
        ("pdf", b"%PDF", b"/FontFile2"),
    ],
)
def test_three_formats_are_written_the_same_every_time(tmp_path, kind, begins, holds):
    paths = [save_figure(drawn(), tmp_path / f"{n}" / f"figure.{kind}", dpi=80) for n in range(2)]
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.startswith(begins) and holds in first


def test_an_array_of_axes_and_a_figure_are_saved_as_their_figure(tmp_path):
    axes = plot_scatter_matrix({"a": [1.0, 2.0, 3.0], "b": [1.0, 3.0, 2.0]})
    sizes = [save_figure(x, tmp_path / "a.png", dpi=50).stat().st_size for x in (axes, drawn())]
    assert sizes[0] != sizes[1]
    figure = Figure()
    assert save_figure(figure, tmp_path / "b.png").exists()


def test_another_format_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InvalidValueError, match=r"of figure.pngg is 'pngg' .did you mean 'png'"):
        save_figure(drawn(), tmp_path / "figure.pngg")
    with pytest.raises(InvalidValueError, match="a list is on no figure"):
        save_figure([], tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_belongs_to_pyplot_only_where_someone_sees_it(monkeypatch):
    assert pyplot.get_fignums() == []
    drawn()
    assert pyplot.get_fignums() == []
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    drawn()
    assert len(pyplot.get_fignums()) == 1
    pyplot.close("all")


def test_many_lines_differ_in_colour_or_marker():
    drawn = plot_depth({f"s{n}": {"a": n, "b": n + 1} for n in range(20)}).get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 20


def test_colours_differ_in_lightness_for_the_colour_blind():
    """Every two colours differ where red and green are one channel (Vienot and others 1999)."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS]) ** 2.2
    to_lms = np.array(
        [[17.8824, 43.5161, 4.1194], [3.4557, 27.1554, 3.8671], [0.03, 0.1843, 1.467]]
    )
    seen_as = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    seen = rgb @ to_lms.T @ seen_as.T @ np.linalg.inv(to_lms).T
    gaps = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.1
