"""Channels in the space of their metrics, flow between types, and who is in a halo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    SEQUENTIAL,
    SINGLE,
    TEXT,
    label_axes,
    label_bar,
    legend_above,
    paper_axes,
    quiet,
)
from nodelens.figures.values import numbers, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TYPE_STYLES", "plot_cluster_flow", "plot_clusters", "plot_clusters_3d", "plot_halo"]

TYPE_STYLES: Mapping[str, tuple[str, str]] = {
    "critical": (COLOURS[1], MARKERS[0]),
    "redundant": (COLOURS[0], MARKERS[1]),
    "synergistic": (COLOURS[2], MARKERS[2]),
    "background": (GREY, MARKERS[3]),
}
"""Colour and marker of every type of channel, the same in all figures."""
_NAMES = {"log_rq": "log Rayleigh quotient"}


def plot_clusters(
    points: Any,
    types: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    features: Sequence[str] = ("log_rq", "redundancy", "synergy"),
    axes: tuple[int, int] = (0, 1),
    p_value: float | None = None,
) -> Axes:
    """Return axes with a mark for every channel in two dimensions of its metric space.

    `points` is a ClusterResult, or `(channels, features)`, z-scores, with `types` `(channels,)`.
    `axes` are the two features to draw. Where `p_value` is above 5% the legend says that noise has
    clusters as tight.

    Raises ShapeError where there is not one type a channel, or no such feature.
    """
    found = _space(points, types, features, p_value, max(axes) + 1)
    ax = paper_axes(ax, SINGLE, 2.9)
    _draw_types(ax, found, axes)
    label_axes(ax, *(f"{_named(found.features[axis])}, z-scored" for axis in axes))
    legend_above(ax, found.noise)
    quiet(ax)
    return ax


def plot_clusters_3d(
    points: Any,
    types: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    features: Sequence[str] = ("log_rq", "redundancy", "synergy"),
    p_value: float | None = None,
    view: tuple[float, float] = (22.0, -60.0),
) -> Axes:
    """Return axes in three dimensions with a mark for every channel, as `plot_clusters` in two.

    `view` is where from: degrees above the ground and around it.

    Raises InvalidValueError for flat axes, ShapeError for fewer than three features.
    """
    found = _space(points, types, features, p_value, 3)
    if ax is not None and not hasattr(ax, "get_zlim"):
        raise InvalidValueError("the axes are flat, expected some with projection='3d'")
    if ax is None:
        flat = paper_axes(None, SINGLE, 2.9)
        figure = flat.figure
        flat.remove()
        ax = figure.add_subplot(projection="3d")
    _draw_types(ax, found, (0, 1, 2))
    space: Any = ax
    for axis, feature in zip("xyz", found.features, strict=False):
        getattr(space, f"set_{axis}label")(_named(feature), fontsize=7.5, color=TEXT, labelpad=-6)
        space.tick_params(axis=axis, labelsize=6.5, colors=TEXT, pad=-3)
        getattr(space, f"{axis}axis").set_pane_color((1.0, 1.0, 1.0, 0.0))
        getattr(space, f"{axis}axis").set_major_locator(_few_ticks())
    space.view_init(*view)
    space.set_box_aspect(None, zoom=0.95)
    legend_above(ax, found.noise)
    return ax


@dataclass(frozen=True)
class _Space:
    """Channels in their metric space, `points` `(channels, features)`."""

    points: NDArray[np.float64]
    types: NDArray[np.str_]
    features: Sequence[str]
    p_value: float | None

    @property
    def noise(self) -> str:
        """Return what has to be said where noise has clusters as tight."""
        if self.p_value is None or self.p_value <= 0.05:
            return ""
        return f"no structure: noise is as tight (p = {self.p_value:.2g})"


def _space(
    given: Any,
    types: Sequence[str] | None,
    features: Sequence[str],
    p_value: float | None,
    least: int,
) -> _Space:
    if hasattr(given, "channel_types"):
        tested = given.structure
        types, features = given.channel_types, given.features
        p_value = tested.p_value if p_value is None and tested is not None else p_value
        given = given.points
    values, types = numbers(given), [] if types is None else types
    if values.ndim != 2 or len(values) != len(types) or values.shape[1] < least:
        raise ShapeError(
            f"points have shape {values.shape} for {len(types)} types, expected (channels, "
            f"{least} features or more) and one type a channel"
        )
    for name in set(types):
        one_of(name, TYPE_STYLES, "a type")
    return _Space(values, np.asarray(types, dtype=np.str_), features, p_value)


def _draw_types(ax: Axes, found: _Space, axes: Sequence[int]) -> None:
    for name, (colour, marker) in TYPE_STYLES.items():
        if (chosen := found.points[found.types == name]).size:
            ax.plot(
                *(chosen[:, axis] for axis in axes),
                linestyle="none",
                marker=marker,
                color=colour,
                markersize=4.4 if len(found.points) <= 300 else 2.6,
                markeredgecolor="white",
                markeredgewidth=0.4 if len(found.points) <= 300 else 0.1,
                alpha=0.85,
                label=f"{name} ({len(chosen)})",
            )


def _named(feature: str) -> str:
    return _NAMES.get(feature, feature)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, integer=True)


def plot_cluster_flow(
    flow: ArrayLike,
    source_types: Sequence[str],
    target_types: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the share of each source type's influence that goes to each target type.

    `flow` is `(source types, target types)`; rows sum to 1, as `cluster_flow` gives them.
    """
    cells = numbers(flow)
    if cells.shape != (len(source_types), len(target_types)):
        raise ShapeError(
            f"the flow has shape {cells.shape}, expected "
            f"({len(source_types)}, {len(target_types)}) as there are types"
        )
    ax = paper_axes(ax, 1.5 + 0.6 * len(target_types), 1.0 + 0.42 * len(source_types))
    image = ax.imshow(
        cells, aspect="auto", cmap=SEQUENTIAL, vmin=0.0, vmax=max(float(cells.max()), 1e-12)
    )
    for (i, j), share in np.ndenumerate(cells):
        dark = share > 0.6 * cells.max()
        colour = "white" if dark else TEXT
        ax.text(j, i, f"{share:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    ax.set_xticks(range(len(target_types)), target_types, rotation=30, ha="right")
    ax.set_yticks(range(len(source_types)), source_types)
    label_axes(ax, "type in the next layer", "type of the source")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=16, pad=0.03)
    label_bar(bar, "share of influence")
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
    values = numbers(relative)
    if values.ndim != 1 or not len(values):
        raise InvalidValueError(
            f"the relative influence has shape {values.shape}, expected (targets,), one or more"
        )
    ax = paper_axes(ax, SINGLE, 2.5)
    order = np.argsort(-values, kind="stable")
    inside = np.isin(order, numbers(halo))
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
    label_axes(ax, "channels of the next layer, by share", f"share of input\nfrom {source}")
    legend_above(ax)
    quiet(ax, grid="y")
    return ax
