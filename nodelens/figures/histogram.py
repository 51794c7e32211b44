"""How a score is spread over the channels of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.figures.layers import MANY, layer_ticks
from nodelens.figures.style import (
    COLOURS,
    GREY,
    SINGLE,
    TEXT,
    label_axes,
    paper_axes,
    quiet,
    with_unit,
)
from nodelens.figures.values import Array, layer_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_score_histogram"]

_ROW = 0.86


def plot_score_histogram(
    scores: Any,
    ax: Axes | None = None,
    *,
    score: str | None = None,
    name: str | None = None,
    unit: str | None = None,
    bins: int = 24,
    log: bool = False,
) -> Axes:
    """Return axes with one histogram a layer, first layer on top, all over the same bins.

    `scores` is a LensResult, of which `score` is meant, or `{layer: (channels,)}`. Bars show the
    share of the layer's channels, each layer scaled to its own highest bar, so that layers of 16
    and of 1,536 channels can be compared. A tick marks the layer's median. Channels without a
    finite score are left out, and the axis says how many; a layer of nothing else is said to have
    none. `log` is for scores of very different sizes: bins are of like ratio, and scores of 0 or
    below count as missing.

    Raises InvalidValueError for no layers, or no finite score.
    """
    given = layer_scores(scores, score, name, unit)
    given = given.positive() if log else given
    values = given.finite
    ax = paper_axes(ax, SINGLE, 0.7 + (0.32 if len(values) <= MANY else 0.16) * len(values))
    every = np.concatenate(list(values.values()))
    edges = (
        10 ** np.histogram_bin_edges(np.log10(every), bins)
        if log
        else (np.histogram_bin_edges(every, bins))
    )
    for row, (layer, layer_values) in enumerate(values.items()):
        if len(layer_values):
            _draw_layer(ax, row, layer, layer_values, edges)
        else:
            ax.text(edges[0], row, "no finite score", fontsize=7, color=GREY)
    ax.set_ylim(len(values) - 0.4, -1.0)
    side = layer_ticks(ax, given.layers, "y")
    label_axes(ax, with_unit(given.name, given.unit) + given.note, side if side != "layer" else "")
    if every.min() == every.max():
        ax.set_xticks([every[0]], [f"{every[0]:g}"])
    elif log:
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", nbins=4)
    quiet(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _draw_layer(ax: Axes, row: int, layer: str, values: Array, edges: Array) -> None:
    counts, _ = np.histogram(values, edges)
    ax.stairs(
        row - _ROW * counts / max(counts.max(), 1),
        edges,
        baseline=row,
        fill=True,
        color=COLOURS[0],
        alpha=0.75,
        linewidth=0,
        label=layer,
    )
    ax.plot([edges[0], edges[-1]], [row, row], color=COLOURS[0], linewidth=0.5, alpha=0.5)
    median = float(np.median(values))
    ax.plot([median, median], [row, row + 0.13], color=TEXT, linewidth=1.2, solid_capstyle="butt")
