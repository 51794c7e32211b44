"""Tables as colour: metrics over layers, and how alike metrics rank channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nodelens.errors import ShapeError
from nodelens.figures.layers import MANY, layer_ticks
from nodelens.figures.style import (
    DIVERGING,
    DOUBLE,
    TEXT,
    hatched,
    label_axes,
    label_bar,
    paper_axes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

__all__ = ["plot_layer_heatmap", "plot_rank_correlation"]

_WRITTEN = 24
"""Up to as many metrics have their correlations written into the cells."""


def plot_layer_heatmap(
    ranks: pd.DataFrame, ax: Axes | None = None, *, values: pd.DataFrame | None = None
) -> Axes:
    """Return axes with a cell for every metric (row) and layer (column).

    `ranks` holds, for each metric, the mean rank of the layer's channels among all channels of the
    network, between 0 (lowest) and 1; ranks have no unit, so rows can share one colour scale.
    `values`, of the same shape, is written into the cells of up to 12 layers. A metric that is the
    same for every channel has no rank (NaN) and is drawn hatched.

    Raises ShapeError for values of another shape or an empty table.
    """
    if values is not None and values.shape != ranks.shape:
        raise ShapeError(f"values have shape {values.shape}, expected {ranks.shape} as the ranks")
    rows, columns = ranks.shape
    if not ranks.size:
        raise ShapeError(
            f"ranks have shape {ranks.shape}, expected (metrics, layers) of at least 1"
        )
    few = columns <= MANY
    # What fits between a column of names and the edge of two columns of print.
    width = 2.4 + 0.62 * columns if few else DOUBLE
    ax = paper_axes(ax, min(width, DOUBLE), 1.0 + (0.24 if rows <= 30 else 0.13) * rows)
    cells = ranks.to_numpy(dtype=np.float64)
    image = _draw_cells(ax, cells, 0.0, 1.0)
    ax.xaxis.tick_top()
    title = layer_ticks(ax, [str(name) for name in ranks.columns])
    if few:
        turned = any(label.get_rotation() for label in ax.get_xticklabels())
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("left" if turned else "center")
    ax.set_yticks(range(rows), [str(name) for name in ranks.index])
    ax.tick_params(axis="y", labelsize=7.5 if rows <= 30 else 6)
    if title != "layer":
        label_axes(ax, title)
    if values is not None and few:
        texts = [[_short(value) for value in row] for row in values.to_numpy(dtype=np.float64)]
        _write_cells(ax, cells, texts, 0.5, 0.5)
    _colourbar(ax, image, "mean rank of\nthe layer's channels", [0, 0.5, 1])
    return ax


def plot_rank_correlation(correlation: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Return axes with the lower triangle of a table of rank correlations between -1 and 1.

    `correlation` is square, metrics by metrics. NaN (a metric that is constant) is drawn hatched.
    """
    size = len(correlation)
    if correlation.shape != (size, size) or size < 2:
        raise ShapeError(
            f"the correlation has shape {correlation.shape}, expected metrics by metrics, 2 or more"
        )
    few = size <= _WRITTEN
    wide, high = (0.33, 0.26) if few else (0.11, 0.11)
    ax = paper_axes(ax, 2.1 + wide * size, 1.3 + high * size)
    cells = correlation.to_numpy(dtype=np.float64)[1:, :-1]
    hidden = np.triu(np.ones_like(cells, dtype=bool), k=1)
    image = _draw_cells(ax, cells, -1.0, 1.0, hidden)
    names = [str(name) for name in correlation.columns]
    ax.set_xticks(range(size - 1), names[:-1], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(size - 1), names[1:])
    if not few:
        ax.tick_params(labelsize=5.5)
    if few:
        texts = [
            ["" if hidden[i, j] else _signed(cells[i, j]) for j in range(size - 1)]
            for i in range(size - 1)
        ]
        _write_cells(ax, cells, texts, 0.0, 1.0)
    bar = ax.inset_axes((0.62, 0.93, 0.36, 0.022))
    _colourbar(ax, image, "Spearman's ρ", [-1, 0, 1], bar)
    return ax


def _draw_cells(
    ax: Axes,
    cells: NDArray[np.float64],
    low: float,
    high: float,
    hidden: NDArray[np.bool_] | None = None,
) -> AxesImage:
    missing = np.isnan(cells)
    covered = missing if hidden is None else missing | hidden
    image = ax.imshow(
        np.ma.masked_array(cells, covered), cmap=DIVERGING, vmin=low, vmax=high, aspect="auto"
    )
    for i, j in np.argwhere(missing if hidden is None else missing & ~hidden):
        hatched(ax, j - 0.5, i - 0.5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks(np.arange(cells.shape[1] + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(cells.shape[0] + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.2 if max(cells.shape) <= 24 else 0.3)
    ax.tick_params(which="minor", length=0)
    return image


def _write_cells(
    ax: Axes, cells: NDArray[np.float64], texts: list[list[str]], centre: float, reach: float
) -> None:
    """Write `texts` into the cells, white where the colour is strong."""
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            strong = abs(cells[i, j] - centre) > 0.62 * reach
            ax.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if strong else TEXT,
            )


def _colourbar(
    ax: Axes, image: AxesImage, label: str, ticks: list[float], inside: Axes | None = None
) -> None:
    if inside is None:
        bar = ax.figure.colorbar(
            image,
            ax=ax,
            ticks=ticks,
            shrink=0.5 if len(ax.get_yticks()) > 8 else 0.9,
            aspect=18,
            pad=0.02,
        )
    else:
        bar = ax.figure.colorbar(image, cax=inside, ticks=ticks, orientation="horizontal")
    label_bar(bar, label)


def _short(value: float) -> str:
    """Return `value` in at most five characters or so, enough to compare orders of magnitude."""
    if np.isnan(value):
        return ""
    if value == 0 or 0.01 <= abs(value) < 99.5:
        text = f"{value:.2g}"
    elif 99.5 <= abs(value) < 9999.5:
        text = f"{value:.0f}"
    else:
        text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return "−" + text[1:] if value < 0 else text


def _signed(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1).replace("-", "−")
