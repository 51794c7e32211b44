"""Curves over runs, each a mean on its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodelens.errors import InvalidValueError
from nodelens.figures.style import COLOURS, GREY, MARKERS, TEXT, paper_axes, quiet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_run_curves"]

_COLUMNS = ("score", "mode", "amount", "runs", "mean", "low", "high")
_CONDITION = ("experiment", "network", "data")


def plot_run_curves(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Return axes with mean accuracy over runs by share silenced, each line on its interval.

    `curves` is that table of a `Comparison`: a row an order and amount, intervals in `low` and
    `high`, NaN where there is one run. Random orders are grey.

    Raises InvalidValueError for a missing column or an empty table.
    """
    missing = [name for name in _COLUMNS if name not in curves.columns]
    if missing or curves.empty:
        raise InvalidValueError(
            f"the table of curves has no {missing[0] if missing else 'rows'!r}, expected rows with"
            f" {', '.join(_COLUMNS)}"
        )
    ax = paper_axes(ax, 4.4, 3.2)
    told = [name for name in _CONDITION if name in curves and curves[name].nunique() > 1]
    number = 0
    for key, rows in curves.groupby([*told, "score", "mode"], sort=False):
        *where, score, mode = map(str, key)
        name = "random" if score == "random" else f"{score}, {mode} first"
        _draw(ax, ", ".join([*where, name]), rows, None if score == "random" else number)
        number += score != "random"
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("share of channels silenced", fontsize=8, color=TEXT)
    ax.set_ylabel("test accuracy, mean and 95% interval", fontsize=8, color=TEXT)
    ax.legend(fontsize=7, frameon=False)
    quiet(ax, grid="y")
    return ax


def _draw(ax: Axes, name: str, rows: pd.DataFrame, number: int | None) -> None:
    """Draw one line on its band; without a number it is a control."""
    rows = rows.sort_values("amount")
    runs = int(rows["runs"].max())
    colour = GREY if number is None else COLOURS[number % len(COLOURS)]
    ax.fill_between(rows["amount"], rows["low"], rows["high"], color=colour, alpha=0.18, lw=0)
    ax.plot(
        rows["amount"],
        rows["mean"],
        color=colour,
        marker="" if number is None else MARKERS[number % len(MARKERS)],
        linewidth=1.4,
        markersize=3.6,
        label=f"{name} ({runs} run{'s' if runs > 1 else ''})",
    )
