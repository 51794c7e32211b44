"""A score against what silencing each channel really cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.figures.layers import MANY, depth_bar, short_names
from nodelens.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    SINGLE,
    TEXT,
    depth_colours,
    label_axes,
    legend_above,
    legend_height,
    paper_axes,
    quiet,
    with_unit,
)
from nodelens.figures.values import missing_note, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_damage"]

_RESPONSES = {"loss_change": "rise in loss (nats)", "accuracy_change": "change in accuracy"}


def plot_damage(
    result: Any,
    ax: Axes | None = None,
    *,
    response: str = "loss_change",
    name: str = "score",
    unit: str = "",
    log: bool = False,
) -> Axes:
    """Return axes with a mark for every channel: its score, and what silencing it alone cost.

    `result` is that of `ablation_validation`, or a table with columns `layer`, `score` and
    `response` (`loss_change` in nats, or `accuracy_change`). Colours are layers, first to last.
    Where the result has an estimate `spearman` it is written above, with its 95% interval. `log`
    makes the axis of scores logarithmic. Channels without both numbers are left out, and the axis
    says how many.

    Raises InvalidValueError for a missing column or an empty table.
    """
    table = table_of(result, ["layer", "score", response])
    x, y = (table[column].to_numpy(dtype=float) for column in ("score", response))
    if log:
        x = np.where(x > 0, x, np.nan)
    layers = list(dict.fromkeys(map(str, table["layer"])))
    labels = short_names(layers)[0]
    ax = paper_axes(ax, SINGLE, 2.4 + legend_height(labels, SINGLE) * (len(labels) <= MANY))
    ax.axhline(0, color=GREY, linewidth=0.7)
    place = table["layer"].astype(str).to_numpy()
    for number, (layer, label) in enumerate(zip(layers, labels, strict=True)):
        mine = (place == layer) & np.isfinite(x) & np.isfinite(y)
        _draw(ax, x[mine], y[mine], number, layers, label)
    if log:
        ax.set_xscale("log")
    note = missing_note(x + y, "channel", *(["not above 0"] if log else []))
    label_axes(ax, with_unit(name, unit) + note, _RESPONSES.get(response, response))
    _write_estimate(ax, getattr(result, "estimates", {}).get("spearman"))
    if len(layers) <= MANY:
        legend_above(ax)
    else:
        depth_bar(ax, len(layers))
    quiet(ax)
    return ax


def _draw(ax: Axes, x: Any, y: Any, number: int, layers: Sequence[str], label: str) -> None:
    few = len(layers) <= len(COLOURS)
    ax.plot(
        x,
        y,
        linestyle="none",
        marker=MARKERS[number % len(MARKERS)] if few else "o",
        color=COLOURS[number] if few else depth_colours(len(layers))[number],
        markersize=3.8 if few else 3.0,
        markeredgecolor="white",
        markeredgewidth=0.3,
        alpha=0.85,
        label=label,
    )


def _write_estimate(ax: Axes, found: Any) -> None:
    if found is None:
        return
    text = f"Spearman {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")
    ax.text(
        0.02,
        0.98,
        text,
        transform=ax.transAxes,
        va="top",
        fontsize=7,
        color=TEXT,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )
