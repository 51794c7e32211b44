"""What shrinking saved: a quantity before and after, one network below the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures.style import (
    COLOURS,
    GREY,
    SINGLE,
    TEXT,
    label_axes,
    legend_above,
    paper_axes,
    quiet,
)
from nodelens.figures.values import numbers, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_latency"]

_QUANTITIES = {
    "seconds": (1e3, "median time of a pass (ms)"),
    "parameters": (1e-6, "parameters (millions)"),
    "bytes": (1e-6, "size (MB)"),
    "macs": (1e-6, "multiply-accumulates of a pass (millions)"),
}


def plot_latency(
    reports: Mapping[str, Any], ax: Axes | None = None, *, quantity: str = "seconds"
) -> Axes:
    """Return axes with a line a network from after to before shrinking, the ratio beside it.

    `reports` is `{name: ShrinkReport}`, or `{name: (before, after)}` in seconds, parameters, bytes
    or multiply-accumulates, as `quantity` (`seconds`, `parameters`, `bytes`, `macs`) says. A report
    made without timing has no seconds: its row says so.

    Raises InvalidValueError for no report or an unknown quantity.
    """
    scale, title = _QUANTITIES[one_of(quantity, _QUANTITIES, "quantity")]
    if not reports:
        raise InvalidValueError("there are no reports to draw, expected {name: ShrinkReport}")
    pairs = np.array([scale * _pair(name, found, quantity) for name, found in reports.items()])
    ax = paper_axes(ax, SINGLE, 0.85 + 0.24 * len(pairs))
    rows = np.arange(len(pairs))
    known = np.isfinite(pairs).all(axis=1)
    ax.hlines(rows[known], *np.sort(pairs[known], axis=1).T, color=GREY, linewidth=1.4, zorder=1)
    for column, label, colour in ((0, "before", GREY), (1, "after", COLOURS[0])):
        ax.plot(
            pairs[known, column],
            rows[known],
            linestyle="none",
            marker="o",
            markersize=5,
            color=colour,
            label=label,
        )
    for row, (before, after) in enumerate(pairs):
        _write(ax, row, before, after)
    ax.set_yticks(rows, list(reports))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(0, 1.3 * float(np.nanmax(pairs, initial=1e-9)))
    label_axes(ax, title)
    legend_above(ax)
    quiet(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return ax


def _pair(name: str, found: Any, quantity: str) -> Any:
    change = getattr(found, quantity, found)
    pair = numbers((change.before, change.after) if hasattr(change, "before") else change)
    if pair.shape != (2,):
        raise ShapeError(f"{name!r} has values of shape {pair.shape}, expected (before, after)")
    return pair


def _write(ax: Axes, row: int, before: float, after: float) -> None:
    known = np.isfinite(before) and np.isfinite(after)
    ax.annotate(
        f"×{after / before:.2f}" if known and before else "not measured",
        (max(before, after) if known else 0.0, row),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=TEXT if known else GREY,
    )
