"""One look for all figures: colours that colour-blind readers tell apart, text of 8 points."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "DIVERGING", "GREY", "MARKERS", "TEXT", "paper_axes", "quiet", "shown_unit"]

# Okabe and Ito (2008) without its yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#8a8f98"
TEXT = "#1f2430"
DIVERGING = "PuOr_r"


def paper_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of `width` x `height` inches."""
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=(width, height), layout="constrained")[1]
    ax.tick_params(labelsize=8, colors=TEXT, length=3, width=0.6)
    return ax


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


def shown_unit(unit: str) -> str:
    """Return a unit as it is printed: powers raised, nothing for a plain number.

    >>> shown_unit("activation^2"), shown_unit("1")
    ('activation²', '')
    """
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³").replace("^4", "⁴")
