"""Halos beside the other channels of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.layers import short_names
from nodelens.figures.style import (
    COLOURS,
    GREY,
    SINGLE,
    label_axes,
    legend_above,
    paper_axes,
    quiet,
)
from nodelens.figures.values import Array, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_halo_properties"]

_PROPERTIES = ("redundancy", "synergy")


def plot_halo_properties(
    halos: Sequence[Any], ax: Axes | None = None, *, measure: str = "redundancy", unit: str = "nats"
) -> Axes:
    """Return axes with the mean of a score in each halo and in the rest of its layer.

    `halos` are HaloResults, first on top, each with its size; `measure` is `redundancy` or
    `synergy`. A halo whose layer has no such score is a row that says so.

    Raises InvalidValueError for no halo or another measure.
    """
    one_of(measure, _PROPERTIES, "measure")
    found = list(halos)
    if not found:
        raise InvalidValueError("there are no halos to draw, expected HaloResults")
    means = np.array(
        [[_number(h, measure), _number(h, f"other_{measure}")] for h in found], dtype=float
    )
    ax = paper_axes(ax, SINGLE, 0.9 + 0.22 * len(found))
    _draw(ax, means, measure)
    layers = short_names([halo.layer_name or "layer" for halo in found])[0]
    names = [
        f"{layer}, {halo.source_cluster or 'cluster'} ({halo.halo_size})"
        for layer, halo in zip(layers, found, strict=True)
    ]
    ax.set_yticks(range(len(found)), names)
    ax.set_ylim(len(found) - 0.5, -0.5)
    label_axes(ax, f"mean {measure} ({unit})" if unit else f"mean {measure}")
    legend_above(ax)
    quiet(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return ax


def _draw(ax: Axes, means: Array, measure: str) -> None:
    """Draw `means` `(halos, 2)`: of the halo, and of the rest."""
    rows = np.arange(len(means))
    known = np.isfinite(means).all(axis=1)
    ax.hlines(rows[known], *np.sort(means[known], axis=1).T, color=GREY, linewidth=1.0, zorder=1)
    for column, label, colour in ((1, "rest of the layer", GREY), (0, "halo", COLOURS[1])):
        marker = "os"[column]
        ax.plot(means[:, column], rows, marker, color=colour, markersize=4.6, label=label)
    for row in rows[~known]:
        ax.annotate(
            f"no {measure} of both",
            (0.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=GREY,
        )


def _number(halo: Any, name: str) -> float:
    value = getattr(halo, name)
    return float("nan") if value is None else float(value)
