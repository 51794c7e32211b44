"""Estimates on their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nodelens.errors import InvalidValueError
from nodelens.figures.style import COLOURS, GREY, SINGLE, label_axes, paper_axes, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_intervals"]


def plot_intervals(
    estimates: Mapping[str, tuple[float, float, float]],
    ax: Axes | None = None,
    *,
    label: str = "estimate, with its 95% interval",
    controls: Collection[str] = (),
) -> Axes:
    """Return axes with one point a name, `(value, low, high)`, the first on top; controls in grey.

    A line marks 0. Raises InvalidValueError for no estimate.
    """
    if not estimates:
        raise InvalidValueError("there are no estimates to draw, expected at least one")
    ax = paper_axes(ax, SINGLE if len(estimates) <= 8 else 5.0, 0.7 + 0.19 * len(estimates))
    ax.axvline(0, color=GREY, linewidth=0.8)
    names = list(estimates)[::-1]
    for height, name in enumerate(names):
        value, low, high = estimates[name]
        colour = GREY if name in controls else COLOURS[0]
        ax.plot([low, high], [height, height], color=colour, linewidth=1.2, alpha=0.6)
        ax.plot(value, height, "o", color=colour, markersize=3.6)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_ylim(-0.7, len(estimates) - 0.3)
    label_axes(ax, label)
    quiet(ax, grid="x")
    return ax
