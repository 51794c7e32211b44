"""How the types of channels change with depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.clusters import TYPE_STYLES
from nodelens.figures.layers import layer_ticks
from nodelens.figures.style import SINGLE, hatched, label_axes, legend_above, paper_axes, quiet
from nodelens.figures.values import one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_type_shares"]


def plot_type_shares(clusters: Any, ax: Axes | None = None) -> Axes:
    """Return axes with a bar a layer, first layer left, divided by type of channel.

    `clusters` are ClusterResults in a list or by layer; or `{layer: types}`, a type a channel; or
    `{layer: {type: channels}}`. Types are `critical`, `redundant`, `synergistic`, `background`. A
    layer without channels is hatched.

    Raises InvalidValueError for no layer or an unknown type.
    """
    if not isinstance(clusters, Mapping):
        clusters = {found.layer_name: found for found in clusters}
    if not clusters:
        raise InvalidValueError("there are no layers to draw, expected clusters of at least one")
    counts = np.array([_counts(layer, found) for layer, found in clusters.items()], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    ax = paper_axes(ax, SINGLE, 2.3)
    places = np.arange(len(shares))
    bottom = np.zeros(len(shares))
    for (name, (colour, _)), share in zip(TYPE_STYLES.items(), shares.T, strict=True):
        ax.bar(places, share, bottom=bottom, width=0.86, color=colour, alpha=0.85, label=name)
        bottom += share
    for place in places[totals[:, 0] == 0]:
        hatched(ax, place - 0.43, 0.0, 0.86, 1.0)
    _label(ax, [str(layer) for layer in clusters])
    return ax


def _label(ax: Axes, layers: list[str]) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_ylim(0, 1)
    ax.set_xlim(-0.6, len(layers) - 0.4)
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    label_axes(ax, layer_ticks(ax, layers), "share of channels")
    legend_above(ax)
    quiet(ax)


def _counts(layer: Any, found: Any) -> list[int]:
    found = getattr(found, "counts", found) if hasattr(found, "channel_types") else found
    if not isinstance(found, Mapping):
        types = list(found)
        found = {name: types.count(name) for name in types}
    for name in found:
        one_of(str(name), TYPE_STYLES, f"layer {layer!r}: a type")
    return [int(found.get(name, 0)) for name in TYPE_STYLES]
