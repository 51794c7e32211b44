"""How a score is spread over the channels of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodelens.errors import InvalidValueError
from nodelens.figures.style import COLOURS, TEXT, paper_axes, quiet, shown_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_score_histogram"]

_ROW = 0.86


def plot_score_histogram(
    scores: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    name: str = "score",
    unit: str = "",
    bins: int = 24,
) -> Axes:
    """Return axes with one histogram a layer, first layer on top, all over the same bins.

    `scores` holds the scores of each layer, shape `(channels,)`. Bars show the share of the
    layer's channels, each layer scaled to its own highest bar, so that layers of 16 and of 1,536
    channels can be compared. A tick marks the layer's median.

    Raises InvalidValueError for no layers, or for scores that are not finite.
    """
    values = {layer: _finite(layer, layer_scores) for layer, layer_scores in scores.items()}
    if not values:
        raise InvalidValueError("there are no layers to draw, expected scores of at least one")
    ax = paper_axes(ax, 2.6, 0.7 + 0.32 * len(values))
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    for row, (layer, layer_values) in enumerate(values.items()):
        _draw_layer(ax, row, layer, layer_values, edges)
    ax.set_ylim(len(values) - 0.4, -1.0)
    ax.set_yticks(range(len(values)), list(values))
    unit = shown_unit(unit)
    ax.set_xlabel(f"{name} ({unit})" if unit else name, fontsize=8, color=TEXT)
    lowest, highest = (float(f([f(v) for v in values.values()])) for f in (np.min, np.max))
    if lowest == highest:
        ax.set_xticks([lowest], [f"{lowest:g}"])
    else:
        ax.locator_params(axis="x", nbins=4)
    quiet(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _draw_layer(
    ax: Axes, row: int, layer: str, values: NDArray[np.float64], edges: NDArray[np.float64]
) -> None:
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


def _finite(layer: str, scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64).ravel()
    bad = int((~np.isfinite(values)).sum())
    if bad or not values.size:
        problem = f"{bad} of {values.size} scores are not finite" if bad else "there are no scores"
        raise InvalidValueError(f"layer {layer!r}: {problem}, expected finite scores")
    return values
