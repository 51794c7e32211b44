"""What a network loses as its channels are silenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from nodelens.figures.values import table_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_sensitivity"]

_COLUMNS = ("score", "mode", "seed", "amount", "accuracy")
_STYLES = {"low": "-", "high": (0, (4, 1.6))}


def plot_sensitivity(
    curves: pd.DataFrame, ax: Axes | None = None, *, chance: float | None = None
) -> Axes:
    """Return axes with accuracy against the fraction of channels silenced, one line an order.

    `curves` is a tidy table with the columns `score`, `mode`, `seed`, `amount` and `accuracy`, both
    fractions between 0 and 1. Rows whose score is `random` become a grey line of means and a band
    from the worst to the best seed. `chance` draws the accuracy of guessing.

    Raises InvalidValueError for a missing column.
    """
    curves = table_of(curves, _COLUMNS)
    ax = paper_axes(ax, SINGLE, 2.3 + legend_height(_labels(curves), SINGLE))
    by_chance = curves[curves["score"] == "random"]
    if len(by_chance):
        _draw_random(ax, by_chance)
    ordered = curves[curves["score"] != "random"]
    both = ordered["mode"].nunique() > 1
    for number, (score, rows) in enumerate(ordered.groupby("score", sort=False)):
        for mode, line in rows.groupby("mode", sort=False):
            _draw_order(ax, number, f"{score}, {mode} first" if both else str(score), mode, line)
    if chance is not None:
        ax.axhline(chance, color=GREY, linewidth=0.8, linestyle=":", label="guessing")
    _label(ax)
    return ax


def _labels(curves: pd.DataFrame) -> list[str]:
    """About what the legend will say, for its height."""
    orders = curves[["score", "mode"]].drop_duplicates()
    return [f"{score}, {mode} first" for score, mode in orders.itertuples(index=False)]


def _draw_random(ax: Axes, rows: pd.DataFrame) -> None:
    band = rows.groupby("amount")["accuracy"].agg(["min", "mean", "max"])
    ax.fill_between(band.index, band["min"], band["max"], color=GREY, alpha=0.28, linewidth=0)
    seeds = rows["seed"].nunique()
    label = f"random ({seeds} seed{'s' if seeds > 1 else ''})"
    ax.plot(band.index, band["mean"], color=CONTROL, linewidth=1.4, label=label)


def _draw_order(ax: Axes, number: int, label: str, mode: object, line: pd.DataFrame) -> None:
    line = line.sort_values("amount")
    ax.plot(
        line["amount"],
        line["accuracy"],
        **line_style(number),
        linestyle=_STYLES.get(str(mode), "-"),
        linewidth=1.4,
        markersize=3.6,
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=label,
        clip_on=False,
    )


def _label(ax: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    label_axes(ax, "channels silenced, in every hidden layer", "accuracy")
    legend_above(ax)
    quiet(ax, grid="y")
