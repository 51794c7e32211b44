"""One look for all figures: colours that colour-blind readers tell apart, small print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

__all__ = [
    "COLOURS",
    "CONTROL",
    "DEPTH",
    "DIVERGING",
    "DOUBLE",
    "GREY",
    "MARKERS",
    "MISSING",
    "SEQUENTIAL",
    "SINGLE",
    "TEXT",
    "depth_colours",
    "hatched",
    "label_axes",
    "label_bar",
    "legend_above",
    "legend_height",
    "line_style",
    "paper_axes",
    "quiet",
    "shown_unit",
    "with_unit",
]

# Okabe and Ito (2008) without its yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#8a8f98"
CONTROL = "#5c626c"
"""What is compared with: random orders, medians of many."""
MISSING = "#f1f2f4"
"""The ground of what has no value; it is hatched in grey."""
TEXT = "#1f2430"
DIVERGING = "PuOr_r"
SEQUENTIAL = "Blues"
DEPTH = "viridis"
"""From the first layer to the last, where there are too many for a colour each."""
SINGLE, DOUBLE = 3.3, 6.9
"""Widths in inches of a figure in one column of a paper, and in both."""

_UNSEEN = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def paper_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of `width` x `height` inches.

    The new figure is pyplot's where someone can see it: at a prompt, in a notebook, or where pyplot
    opens windows. Else it belongs to its axes alone, and goes when they do.
    """
    if ax is None:
        ax = _new_axes(width, height)
    ax.tick_params(labelsize=7.5, colors=TEXT, length=3, width=0.6)
    return ax


def _new_axes(width: float, height: float) -> Axes:
    if _is_shown():
        from matplotlib import pyplot

        return pyplot.subplots(figsize=(width, height), layout="constrained")[1]
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def _is_shown() -> bool:
    if hasattr(sys, "ps1"):
        return True
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot is not None and str(pyplot.get_backend()).lower() not in _UNSEEN


def line_style(number: int) -> dict[str, Any]:
    """Return colour and marker of a line by its number: no two of the first 49 share both."""
    place = number % len(COLOURS)
    return {
        "color": COLOURS[place],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
    }


def quiet(ax: Axes, grid: str | None = None) -> None:
    """Take away the frame that says nothing; `grid` is `x` or `y` for faint lines."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
        ax.spines[side].set_linewidth(0.6)
    if grid in ("x", "y"):
        ax.grid(True, axis="x" if grid == "x" else "y", color="#e4e6ea", linewidth=0.6)
        ax.set_axisbelow(True)


def label_axes(ax: Axes, x: str = "", y: str = "") -> None:
    """Name the axes, in the size and colour of all figures."""
    ax.set_xlabel(x, fontsize=8, color=TEXT)
    ax.set_ylabel(y, fontsize=8, color=TEXT)


def label_bar(bar: Colorbar, label: str, **options: Any) -> None:
    """Name a colour bar, in the size and colour of all figures, and take its frame away."""
    bar.set_label(label, fontsize=7.5, color=TEXT, **options)
    bar.ax.tick_params(labelsize=7.5, length=2, colors=TEXT)
    bar.outline.set_visible(False)


def legend_above(ax: Axes, title: str = "") -> None:
    """Put the legend above the axes, in as many columns as their width takes; none if empty."""
    from matplotlib.transforms import ScaledTranslation

    names = ax.get_legend_handles_labels()[1]
    if not names:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    width = 72 * figure.get_size_inches()[0] * ax.get_position().width
    up = ScaledTranslation(0, 3 / 72, figure.dpi_scale_trans)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes + up,
        borderaxespad=0.0,
        ncols=_columns(names, width),
        title=title or None,
        title_fontsize=7,
        alignment="left",
        fontsize=7,
        labelcolor=TEXT,
        frameon=False,
        handlelength=1.8,
        handletextpad=0.5,
        columnspacing=1.0,
        labelspacing=0.3,
    )


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the inches that `legend_above` takes of a new figure of `width` inches."""
    # Of a figure's width the axes have about three quarters.
    return 0.14 * -(-len(names) // _columns(names, 72 * 0.775 * width)) if names else 0.0


def _columns(names: Sequence[str], points: float) -> int:
    return max(1, min(len(names), int(points / (26 + 3.7 * max(map(len, names))))))


def depth_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return a colour for each of `count` layers, dark to light, none too light for white."""
    from matplotlib import colormaps

    shades = colormaps[DEPTH]
    return [shades(0.88 * i / max(count - 1, 1)) for i in range(count)]


def hatched(ax: Axes, left: float, bottom: float, width: float = 1.0, height: float = 1.0) -> None:
    """Draw a rectangle, in the units of the data, of something that has no value."""
    from matplotlib.patches import Rectangle

    cell = Rectangle(
        (left, bottom), width, height, facecolor=MISSING, edgecolor=GREY, linewidth=0, hatch="////"
    )
    ax.add_patch(cell)


def shown_unit(unit: str) -> str:
    """Return a unit as it is printed: powers raised, nothing for a plain number.

    >>> shown_unit("activation^2"), shown_unit("1")
    ('activation²', '')
    """
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³").replace("^4", "⁴")


def with_unit(name: str, unit: str) -> str:
    """Return a quantity with its unit, as on an axis.

    >>> with_unit("variance", "activation^2")
    'variance (activation²)'
    """
    return f"{name} ({shown_unit(unit)})" if shown_unit(unit) else name
