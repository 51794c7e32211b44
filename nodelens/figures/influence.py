"""Which channel reaches which: the influence of a layer on the next, sorted by type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures.clusters import TYPE_STYLES
from nodelens.figures.style import GREY, SEQUENTIAL, SINGLE, TEXT, label_axes, label_bar, paper_axes
from nodelens.figures.values import Array, missing_note, numbers, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_influence"]


def plot_influence(
    influence: Any,
    ax: Axes | None = None,
    *,
    source_types: Sequence[str] | None = None,
    target_types: Sequence[str] | None = None,
    unit: str = "",
) -> Axes:
    """Return axes with a cell for every target (row) and source (column), dark for much influence.

    `influence` is `(targets, sources)`, at least 0, as `CrossLayerHaloAnalysis.compute_influence`
    gives it. With types, one a channel, channels stand type by type, and lines divide the types.
    The scale ends at the 99.5th centile, so that a few channels do not blacken all others; what is
    above has its colour. Missing values are grey, and the axis says how many.

    Raises ShapeError for another shape, InvalidValueError for an unknown type or negative values.
    """
    values, known = _checked(influence)
    ax = paper_axes(ax, SINGLE, 2.8)
    rows = _order(target_types, len(values), "target_types")
    columns = _order(source_types, values.shape[1], "source_types")
    from matplotlib import colormaps

    image = ax.imshow(
        np.ma.masked_invalid(values[np.ix_(rows, columns)]),
        cmap=colormaps[SEQUENTIAL].with_extremes(bad=GREY),
        vmin=0.0,
        vmax=float(np.percentile(known, 99.5)) or 1.0,
        aspect="auto",
        interpolation="antialiased" if values.size > 10_000 else "nearest",
    )
    _divide(ax, "x", source_types, columns)
    _divide(ax, "y", target_types, rows)
    label_axes(
        ax, f"channel of the source layer{missing_note(values)}", "channel of the next layer"
    )
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, aspect=24, pad=0.02, extend="max")
    label_bar(bar, f"influence ({unit})" if unit else "influence")
    return ax


def _checked(influence: Any) -> tuple[Array, Array]:
    """Return influence, `(targets, sources)`, and its finite values."""
    values = numbers(influence)
    if values.ndim != 2 or not values.size:
        raise ShapeError(f"influence has shape {values.shape}, expected (targets, sources)")
    known = values[np.isfinite(values)]
    if not len(known) or known.min() < 0:
        raise InvalidValueError(
            f"influence has the value {known.min():g}, expected none below 0"
            if len(known)
            else f"none of {values.size} values of influence is finite, expected at least one"
        )
    return values, known


def _order(types: Sequence[str] | None, channels: int, what: str) -> Any:
    """Return the channels type by type, `(channels,)`."""
    if types is None:
        return np.arange(channels)
    if len(types) != channels:
        raise ShapeError(f"{what} are {len(types)}, expected {channels}, one a channel")
    names = list(TYPE_STYLES)
    return np.argsort([names.index(one_of(t, names, what)) for t in types], kind="stable")


def _divide(ax: Axes, which: Literal["x", "y"], types: Sequence[str] | None, order: Any) -> None:
    """Put the types' names in the middle of their channels, and lines between types."""
    if types is None:
        ax.locator_params(axis=which, integer=True, nbins=5)
        return
    axis = ax.xaxis if which == "x" else ax.yaxis
    sorted_types = np.array(types)[order]
    names = [name for name in TYPE_STYLES if name in types]
    first = [int(np.flatnonzero(sorted_types == name)[0]) for name in names]
    ends = [*first[1:], len(order)]
    line = ax.axvline if which == "x" else ax.axhline
    for place in first[1:]:
        line(place - 0.5, color=TEXT, linewidth=0.6)
    middles = [(start + end - 1) / 2 for start, end in zip(first, ends, strict=True)]
    axis.set_ticks(middles, [f"{n} ({e - s})" for n, s, e in zip(names, first, ends, strict=True)])
    axis.set_tick_params(length=0)
    for label in axis.get_ticklabels():
        label.set(fontsize=7)
        if which == "x":
            label.set(rotation=25, ha="right", rotation_mode="anchor")
