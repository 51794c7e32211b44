"""Dose and response: the loss as more of a core goes, or more channels of a type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.clusters import TYPE_STYLES
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
from nodelens.figures.values import missing_note, table_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_doses"]

_NAMES = {"loss_change": "rise in loss (nats)", "loss": "loss (nats)"}
_ANY = "any"
_DOSES = {"fraction": "fraction of the core removed", "n": "channels removed"}


def plot_doses(
    result: Any, ax: Axes | None = None, *, response: str = "loss_change", core: str = "core"
) -> Axes:
    """Return axes with the mean response at every dose, on the draws that it is the mean of.

    `result` is that of `hit_rate_sweep` (a dose is the column `fraction`) or of `cascade` (a dose
    is the column `n`, a line a `type`, the control `any` in grey), or such a table. `response` is
    `loss_change` or `loss` (nats), `perplexity` (logarithmic) or `accuracy`. Where the result has
    estimates of the mean `loss_change`, bars are their 95% intervals. `core` names the line of a
    sweep. Values that are not finite are left out, and the axis says how many.

    Raises InvalidValueError for a missing column or an empty table.
    """
    table = table_of(result, [response])
    dose = next((column for column in _DOSES if column in table), None)
    if dose is None:
        raise InvalidValueError(
            f"the table has the columns {', '.join(map(str, table))}, expected a dose: "
            f"{' or '.join(_DOSES)}"
        )
    table = table.assign(type=table["type"].astype(str) if "type" in table else core)
    kept = table[np.isfinite(table[response].astype(float))]
    types = list(dict.fromkeys(table["type"]))
    ax = paper_axes(ax, SINGLE, 2.3 + legend_height(types, SINGLE))
    if response != "perplexity":
        ax.axhline(0, color=GREY, linewidth=0.7)
    estimates = getattr(result, "estimates", {}) if response == "loss_change" else {}
    for number, name in enumerate(types):
        mine = kept[kept["type"] == name]
        _draw(ax, mine, dose, response, name, number)
        prefix = f"loss_change.{name}." if dose == "n" else "loss_change."
        _draw_intervals(ax, mine[dose].unique(), estimates, prefix, _style(name, number)[0])
    if response == "perplexity":
        ax.set_yscale("log")
    note = missing_note(table[response])
    label_axes(ax, _DOSES[dose] + note, _NAMES.get(response, response))
    if len(types) > 1:
        legend_above(ax)
    quiet(ax, grid="y")
    return ax


def _style(name: str, number: int) -> tuple[str, str]:
    if name == _ANY:
        return CONTROL, "o"
    style = line_style(number)
    return TYPE_STYLES.get(name, (style["color"], style["marker"]))


def _draw(ax: Axes, rows: pd.DataFrame, dose: str, response: str, name: str, number: int) -> None:
    colour, marker = _style(name, number)
    ax.plot(
        rows[dose],
        rows[response],
        linestyle="none",
        marker=marker,
        color=colour,
        markersize=2.6,
        markeredgewidth=0,
        alpha=0.4,
        label="_draws",
    )
    mean = rows.groupby(dose)[response].mean()
    ax.plot(
        mean.index,
        mean,
        color=colour,
        marker=marker,
        linestyle="--" if name == _ANY else "-",
        linewidth=1.3,
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.4,
        label=name,
    )


def _draw_intervals(ax: Axes, doses: Any, estimates: Any, prefix: str, colour: str) -> None:
    found = [(dose, estimates.get(f"{prefix}{dose:g}")) for dose in doses]
    for dose, estimate in found:
        if estimate is not None:
            ax.vlines(dose, estimate.low, estimate.high, color=colour, linewidth=1.1)
