"""Scores by how well they foretell measured damage, best on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.save import figure_of
from nodelens.figures.style import COLOURS, GREY, SINGLE, label_axes, paper_axes, quiet
from nodelens.figures.values import table_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_leaderboard"]

_MEASURES = {
    "spearman": "Spearman with damage",
    "top_recall": "recall of the most damaging",
    "curve_loss": "mean rise in loss along pruning (nats)",
}
_LOW_IS_GOOD = ("curve_loss",)


def plot_leaderboard(
    board: Any, ax: Axes | None = None, *, measure: str = "spearman", most: int = 20
) -> Axes:
    """Return axes with the best scores as points on their 95% intervals, and controls in grey.

    `board` is a Leaderboard or its table: `score`, `family`, `importance`, and `measure` with
    `MEASURE_low` and `MEASURE_high`. `measure` is `spearman`, `top_recall` or `curve_loss`, of
    which a low one is good. The `most` best are drawn, and every control below them. A score
    without a direction of its own is a hollow point; in figures of 4.5 inches and more the family
    stands in grey on the right. Scores
    without the measure are left out, and the axis says how many.

    Raises InvalidValueError for a missing column or an empty table.
    """
    table = table_of(board, ["score", measure, f"{measure}_low", f"{measure}_high"])
    if most < 1:
        raise InvalidValueError(f"most is {most}, expected 1 or more")
    family = table["family"] if "family" in table else np.full(len(table), "")
    table = table.assign(family=family, control=family == "control")
    known = table[np.isfinite(table[measure].astype(float))]
    ranked = known.sort_values(measure, ascending=measure in _LOW_IS_GOOD, kind="stable")
    best = ranked[~ranked["control"]]
    shown = [row for _, row in best.head(most).iterrows()]
    shown += [row for _, row in ranked[ranked["control"]].iterrows()]
    ax = paper_axes(ax, SINGLE, 0.5 + 0.155 * len(shown))
    ax.axvline(0, color=GREY, linewidth=0.7)
    wide = figure_of(ax).get_size_inches()[0] >= 4.5
    for place, row in enumerate(shown):
        _draw(ax, place, row, measure, wide=wide)
    ax.set_yticks(range(len(shown)), [str(row["score"]) for row in shown])
    ax.tick_params(axis="y", length=0, labelsize=6.5)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    label_axes(ax, _MEASURES.get(measure, measure) + _note(len(best), most, len(table), len(known)))
    ax.locator_params(axis="x", nbins=5)
    quiet(ax, grid="x")
    return ax


def _draw(ax: Axes, place: int, row: pd.Series[Any], measure: str, *, wide: bool) -> None:
    colour = GREY if row["control"] else COLOURS[0]
    ends = [float(row[f"{measure}_{end}"]) for end in ("low", "high")]
    ax.plot(ends, [place, place], color=colour, linewidth=1.2, alpha=0.55, label="_interval")
    hollow = row.get("importance", 1) == 0
    ax.plot(
        row[measure],
        place,
        marker="o",
        markersize=3.8,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        label=str(row["score"]),
    )
    if not wide:
        return
    ax.annotate(
        str(row["family"]),
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=6,
        color=GREY,
    )


def _note(found: int, most: int, rows: int, known: int) -> str:
    notes = [f"best {most} of {found}"] if found > most else []
    notes += [f"{rows - known} without this measure"] if rows > known else []
    return f"\n{', '.join(notes)}" if notes else ""
