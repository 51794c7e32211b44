"""How few units hold how much of a score: Lorenz curves, the highest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.layers import MANY, depth_bar, short_names
from nodelens.figures.style import (
    COLOURS,
    CONTROL,
    GREY,
    SINGLE,
    TEXT,
    depth_colours,
    label_axes,
    legend_above,
    paper_axes,
    quiet,
)
from nodelens.figures.values import Array, LayerScores, layer_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_concentration"]

_POINTS = 300
"""Of a curve at most: more cannot be told apart in print."""


def plot_concentration(
    scores: Any,
    ax: Axes | None = None,
    *,
    score: str | None = None,
    name: str | None = None,
    share: float | None = 0.01,
) -> Axes:
    """Return axes with the share of a score's sum that the top units of each layer hold.

    `scores` is a LensResult, of which `score` is meant, or `{layer: (units,)}` of at least 0, such
    as `scar_loss_proxy`; a layer's curve is `nodelens.analysis.supernodes.lorenz` of it. The x axis
    is logarithmic, so that the top 1% can be seen. More than 12 layers are thin lines coloured by
    depth under their median. `share` marks a top share, with what it holds in the median layer (at
    least one unit, as `concentration` counts); None leaves that out. Units without a finite score
    are left out, and the axis says how many.

    Raises InvalidValueError for a negative score.
    """
    given = layer_scores(scores, score, name)
    curves = {layer: _curve(layer, values) for layer, values in given.finite.items() if len(values)}
    ax = paper_axes(ax, SINGLE, 2.6)
    smallest = min(1 / (len(held) - 1) for held in curves.values())
    grid = np.geomspace(smallest, 1, _POINTS)
    if len(curves) > MANY:
        _draw_many(ax, curves, grid)
    else:
        _draw_few(ax, curves)
    ax.plot(grid, grid, color=GREY, linewidth=0.9, linestyle=":", label="all alike")
    if share is not None:
        _mark(ax, curves, share)
    _label(ax, smallest, given)
    return ax


def _curve(layer: str, values: Array) -> Array:
    """Return what the top 0, 1, 2, ... units hold, `(units + 1,)`."""
    if values.min() < 0:
        raise InvalidValueError(
            f"layer {layer!r}: a score is {values.min():g}, expected none below 0: a share of a "
            "sum is drawn"
        )
    # Over the largest: sums of 1e308 are no floats. Where all are 0, nothing is held.
    values = values / (values.max() or 1.0)
    held = np.concatenate([[0.0], np.cumsum(np.sort(values)[::-1])])
    found: Array = held / (held[-1] or 1.0)
    return found


def _draw_few(ax: Axes, curves: dict[str, Array]) -> None:
    names, _ = short_names(list(curves))
    shades = depth_colours(len(curves)) if len(curves) > len(COLOURS) else list(COLOURS)
    for label, held, colour in zip(names, curves.values(), shades, strict=False):
        places = _places(len(held) - 1)
        ax.plot(places / (len(held) - 1), held[places], color=colour, linewidth=1.3, label=label)


def _draw_many(ax: Axes, curves: dict[str, Array], grid: Array) -> None:
    shades = depth_colours(len(curves))
    for held, colour in zip(curves.values(), shades, strict=True):
        places = _places(len(held) - 1)
        ax.plot(places / (len(held) - 1), held[places], color=colour, linewidth=0.6, alpha=0.7)
    between = [np.interp(grid, np.linspace(0, 1, len(held)), held) for held in curves.values()]
    median = np.median(between, axis=0)
    ax.plot(grid, median, color=TEXT, linewidth=1.6, label=f"median of {len(curves)} layers")
    depth_bar(ax, len(curves))


def _places(units: int) -> Any:
    if units <= _POINTS:
        return np.arange(1, units + 1)
    return np.unique(np.geomspace(1, units, _POINTS).round().astype(int))


def _mark(ax: Axes, curves: dict[str, Array], share: float) -> None:
    if not 0 < share <= 1:
        raise InvalidValueError(f"share is {share}, expected a fraction above 0 and up to 1")
    share = max(share, min(1 / (len(c) - 1) for c in curves.values()))
    held = [c[max(1, round(share * (len(c) - 1)))] for c in curves.values()]
    ax.axvline(share, color=CONTROL, linewidth=0.8, linestyle="--")
    ax.annotate(
        f"top {100 * share:.2g}% hold {np.median(held):.0%}",
        (share, 1.0),
        xytext=(3, -2),
        textcoords="offset points",
        va="top",
        fontsize=7,
        color=TEXT,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )


def _label(ax: Axes, smallest: float, given: LayerScores) -> None:
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    ax.set_xscale("log")
    ax.set_xlim(smallest, 1)
    ax.set_ylim(0, 1.02)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    label_axes(ax, f"units, highest score first{given.note}", f"share of {given.name}")
    legend_above(ax)
    quiet(ax, grid="y")
