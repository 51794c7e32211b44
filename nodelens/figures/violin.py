"""Where the channels of each layer lie: violins side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.figures.layers import layer_ticks
from nodelens.figures.save import figure_of
from nodelens.figures.style import (
    COLOURS,
    DOUBLE,
    SINGLE,
    TEXT,
    hatched,
    label_axes,
    paper_axes,
    quiet,
    with_unit,
)
from nodelens.figures.values import Array, layer_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_violin"]

_HALF = 0.42
_GRID = 80
_FEW = 5
"""Fewer values than these have no density worth drawing: they are points."""


def plot_violin(
    scores: Any,
    ax: Axes | None = None,
    *,
    score: str | None = None,
    name: str | None = None,
    unit: str | None = None,
    log: bool = False,
) -> Axes:
    """Return axes with a violin a layer, first layer left, each as wide at its widest.

    `scores` is a LensResult, of which `score` is meant, or `{layer: (channels,)}`. A violin is a
    Gaussian kernel density (Scott 1992) between the lowest and the highest channel; a bar is the
    middle half, a white dot the median. Fewer than 5 channels, and channels all alike, are points.
    With `log` densities are of the logarithm, and scores of 0 or below are missing. A layer without
    a finite score is hatched, and the axis says how many channels are missing.

    Raises InvalidValueError for no layer, or no score that can be drawn.
    """
    given = layer_scores(scores, score, name, unit)
    given = given.positive() if log else given
    ax = paper_axes(ax, SINGLE if len(given.layers) <= 10 else DOUBLE, 2.4)
    kept = given.finite
    if log:
        ax.set_yscale("log")
    for place, values in enumerate(kept.values()):
        if len(values):
            _draw(ax, place, values, log)
    _draw_middles(ax, list(kept.values()))
    _hatch_empty(ax, list(kept.values()))
    label_axes(ax, layer_ticks(ax, given.layers) + given.note, with_unit(given.name, given.unit))
    ax.set_xlim(-0.6, len(kept) - 0.4)
    quiet(ax, grid="y")
    return ax


def _draw(ax: Axes, place: int, values: Array, log: bool) -> None:
    seen = np.log10(values) if log else values
    if len(values) < _FEW or np.ptp(seen) <= 1e-9 * np.abs(seen).max():
        ax.plot(
            np.full(len(values), place),
            values,
            "_",
            color=COLOURS[0],
            markersize=5,
            label="_points",
        )
        return
    grid, width = _density(seen)
    ax.fill_betweenx(
        10**grid if log else grid,
        place - _HALF * width,
        place + _HALF * width,
        color=COLOURS[0],
        alpha=0.45,
        linewidth=0,
    )


def _density(values: Array) -> tuple[Array, Array]:
    """Return heights and the density there, over its highest."""
    from scipy.stats import gaussian_kde

    # Over their spread: the covariance of 1e-200 is no float.
    centre, spread = values.mean(), values.std()
    scaled = (values - centre) / spread
    grid = np.linspace(scaled.min(), scaled.max(), _GRID)
    density = gaussian_kde(scaled)(grid)
    return centre + spread * grid, density / density.max()


def _draw_middles(ax: Axes, layers: list[Array]) -> None:
    places = [place for place, values in enumerate(layers) if len(values)]
    table = [np.percentile(layers[place], [25, 50, 75]) for place in places]
    lower, median, upper = np.array(table).reshape(-1, 3).T
    # In points, from the quarter of a violin's place that a bar may take.
    room = 72 * figure_of(ax).get_size_inches()[0] * ax.get_position().width / len(layers)
    thick = min(2.6, 0.25 * room)
    ax.vlines(places, lower, upper, color=TEXT, linewidth=thick)
    ax.plot(
        places,
        median,
        linestyle="none",
        marker="o",
        color="white",
        markersize=0.85 * thick,
        zorder=3,
        label="median",
    )


def _hatch_empty(ax: Axes, layers: list[Array]) -> None:
    low, high = ax.get_ylim()
    for place, values in enumerate(layers):
        if not len(values):
            hatched(ax, place - _HALF, low, 2 * _HALF, high - low)
    ax.set_ylim(low, high)
