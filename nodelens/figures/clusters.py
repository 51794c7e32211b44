"""Channels in the space of their metrics, flow between types, and who is in a halo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures.style import COLOURS, GREY, MARKERS, TEXT, paper_axes, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TYPE_STYLES", "plot_cluster_flow", "plot_clusters", "plot_halo"]

TYPE_STYLES: Mapping[str, tuple[str, str]] = {
    "critical": (COLOURS[1], MARKERS[0]),
    "redundant": (COLOURS[0], MARKERS[1]),
    "synergistic": (COLOURS[2], MARKERS[2]),
    "background": (GREY, MARKERS[3]),
}
"""Colour and marker of every type of channel, the same in all figures."""
_NAMES = {"log_rq": "log Rayleigh quotient"}


def plot_clusters(
    points: ArrayLike,
    types: Sequence[str],
    ax: Axes | None = None,
    *,
    features: Sequence[str] = ("log_rq", "redundancy", "synergy"),
    axes: tuple[int, int] = (0, 1),
    p_value: float | None = None,
) -> Axes:
    """Return axes with a mark for every channel in two dimensions of its metric space.

    `points` `(channels, features)` are z-scores, as `ClusterResult.points`; `types` `(channels,)`
    their types, `axes` the two features to draw. Where `p_value` is above 5% the axes say that
    noise has clusters as tight.

    Raises ShapeError where there is not one type a channel.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(types) or max(axes) >= values.shape[1]:
        raise ShapeError(
            f"points have shape {values.shape} for {len(types)} types, expected (channels, "
            f"{max(axes) + 1} features or more) and one type a channel"
        )
    ax = paper_axes(ax, 3.4, 3.0)
    labels = np.asarray(types)
    for name, (colour, marker) in TYPE_STYLES.items():
        if (chosen := values[labels == name]).size:
            ax.plot(
                chosen[:, axes[0]],
                chosen[:, axes[1]],
                linestyle="none",
                marker=marker,
                color=colour,
                markersize=4.4,
                markeredgecolor="white",
                markeredgewidth=0.4,
                alpha=0.85,
                label=f"{name} ({len(chosen)})",
            )
    for set_label, axis in ((ax.set_xlabel, axes[0]), (ax.set_ylabel, axes[1])):
        set_label(f"{_NAMES.get(features[axis], features[axis])}, z-scored", fontsize=8, color=TEXT)
    if p_value is not None and p_value > 0.05:
        ax.set_title(f"no structure: noise is as tight (p = {p_value:.2g})", fontsize=8, color=TEXT)
    ax.legend(fontsize=7, frameon=False, handletextpad=0.2, borderaxespad=0.1, loc="best")
    quiet(ax)
    return ax


def plot_cluster_flow(
    flow: ArrayLike,
    source_types: Sequence[str],
    target_types: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the share of each source type's influence that goes to each target type.

    `flow` is `(source types, target types)`; rows sum to 1, as `cluster_flow` gives them.
    """
    cells = np.asarray(flow, dtype=np.float64)
    if cells.shape != (len(source_types), len(target_types)):
        raise ShapeError(
            f"the flow has shape {cells.shape}, expected "
            f"({len(source_types)}, {len(target_types)}) as there are types"
        )
    ax = paper_axes(ax, 1.5 + 0.6 * len(target_types), 1.0 + 0.42 * len(source_types))
    image = ax.imshow(cells, cmap="Blues", vmin=0.0, vmax=max(float(cells.max()), 1e-12))
    for (i, j), share in np.ndenumerate(cells):
        dark = share > 0.6 * cells.max()
        colour = "white" if dark else TEXT
        ax.text(j, i, f"{share:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    ax.set_xticks(range(len(target_types)), target_types, rotation=30, ha="right")
    ax.set_yticks(range(len(source_types)), source_types)
    ax.set_xlabel("type in the next layer", fontsize=8, color=TEXT)
    ax.set_ylabel("type of the source", fontsize=8, color=TEXT)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=16, pad=0.03)
    bar.set_label("share of influence", fontsize=8, color=TEXT)
    bar.ax.tick_params(labelsize=8, length=2, colors=TEXT)
    bar.outline.set_visible(False)
    return ax


def plot_halo(
    relative: ArrayLike,
    halo: ArrayLike,
    ax: Axes | None = None,
    *,
    expected: float | None = None,
    source: str = "the cluster",
) -> Axes:
    """Return axes with every target's relative influence, from high to low, the halo marked.

    `relative` `(targets,)` are fractions between 0 and 1, `halo` the numbers of the targets in it;
    `expected` draws the share that a cluster of that size would have at random.

    Raises InvalidValueError for no target.
    """
    values = np.asarray(relative, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InvalidValueError(
            f"the relative influence has shape {values.shape}, expected (targets,), one or more"
        )
    ax = paper_axes(ax, 3.4, 2.6)
    order = np.argsort(-values, kind="stable")
    inside = np.isin(order, np.asarray(halo))
    place = np.arange(1, len(values) + 1)
    ax.plot(place, values[order], color=GREY, linewidth=1.0, zorder=1)
    for chosen, colour, label in ((~inside, GREY, "others"), (inside, COLOURS[1], "halo")):
        ax.plot(
            place[chosen],
            values[order][chosen],
            linestyle="none",
            marker="o",
            markersize=3.4,
            color=colour,
            label=f"{label} ({int(chosen.sum())})",
        )
    if expected is not None:
        ax.axhline(expected, color=TEXT, linewidth=0.8, linestyle=":", label="at random")
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("channels of the next layer, by share", fontsize=8, color=TEXT)
    ax.set_ylabel(f"share of input from {source}", fontsize=8, color=TEXT)
    ax.legend(fontsize=7, frameon=False, loc="upper right")
    quiet(ax, grid="y")
    return ax
