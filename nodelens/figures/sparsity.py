"""What is left of a network as more of it is pruned, by strategy, beside controls."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.figures.style import (
    CONTROL,
    GREY,
    SINGLE,
    label_axes,
    legend_above,
    legend_height,
    line_style,
    paper_axes,
    quiet,
)
from nodelens.figures.values import missing_note, one_of, table_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_sparsity"]

_NAMES = ("strategy", "score", "label")


def plot_sparsity(
    table: Any,
    ax: Axes | None = None,
    *,
    metric: str = "accuracy",
    by: str | None = None,
    controls: Collection[str] = ("random",),
    dense: float | None = None,
    chance: float | None = None,
    name: str | None = None,
) -> Axes:
    """Return axes with a metric against the fraction pruned, a line a strategy.

    `table` is tidy: a DataFrame, rows, or what has `to_pandas`. `amount` is the fraction pruned;
    `metric` is the column to draw: `accuracy` (a fraction), `perplexity` (logarithmic), `loss`
    (nats), or any other, called `name`. Lines are told apart by the column `by`, by default the
    first of `strategy`, `score` and `label` that there is. Rows of several seeds become their mean,
    on a band from the lowest to the highest. Else columns `low` and `high` (or `METRIC_low`,
    `METRIC_high`) are drawn as intervals. Lines named in `controls` are grey. `dense` is the metric
    of the whole network, `chance` that of guessing. Values that are not finite are left out, and
    the axis says how many.

    Raises InvalidValueError for a missing column or an empty table.
    """
    rows = table_of(table, ["amount", metric])
    by = one_of(by or next((n for n in _NAMES if n in rows), "strategy"), map(str, rows), "by")
    note = missing_note(rows[metric])
    rows = rows[np.isfinite(rows[metric].astype(float))]
    names = [*map(str, rows[by].unique()), "dense"]
    ax = paper_axes(ax, SINGLE, 2.2 + legend_height(names, SINGLE))
    number = 0
    for line, mine in rows.groupby(by, sort=False):
        control = line in controls
        _draw(ax, str(line), mine, metric, number, control=control)
        number += not control
    for level, label in ((dense, "dense"), (chance, "guessing")):
        if level is not None:
            style = "--" if label == "dense" else ":"
            ax.axhline(level, color=GREY, linewidth=0.9, linestyle=style, label=label)
    _label(ax, metric, name or metric, note)
    return ax


def _draw(
    ax: Axes, label: str, rows: pd.DataFrame, metric: str, number: int, *, control: bool
) -> None:
    style: dict[str, Any] = {"color": CONTROL, "marker": ""} if control else line_style(number)
    colour = style["color"]
    places = rows.groupby("amount")[metric].agg(["min", "mean", "max"])
    seeds = rows["seed"].nunique() if "seed" in rows else 1
    ends = _ends(rows, metric)
    if seeds > 1:
        ax.fill_between(
            places.index, places["min"], places["max"], color=colour, alpha=0.2, linewidth=0
        )
        label = f"{label} ({seeds} seeds)"
    elif ends is not None:
        low, high = (rows.groupby("amount")[end].mean() for end in ends)
        ax.vlines(places.index, low, high, color=colour, linewidth=1.0, alpha=0.7)
    ax.plot(
        places.index,
        places["mean"],
        **style,
        linewidth=1.3,
        markersize=3.6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        label=label,
    )


def _ends(rows: pd.DataFrame, metric: str) -> tuple[str, str] | None:
    """The columns of an interval, where there is one."""
    for low, high in ((f"{metric}_low", f"{metric}_high"), ("low", "high")):
        if low in rows and high in rows:
            return low, high
    return None


def _label(ax: Axes, metric: str, name: str, note: str) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    if metric == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        ax.set_ylim(0, 1.02)
    elif metric == "perplexity":
        ax.set_yscale("log")
    label_axes(ax, f"channels pruned{note}", f"{name} (nats)" if metric == "loss" else name)
    legend_above(ax)
    quiet(ax, grid="y")
