"""One layer's units from the highest score to the lowest, those that stand out marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError, ShapeError, nearest
from nodelens.figures.style import (
    COLOURS,
    GREY,
    SINGLE,
    TEXT,
    label_axes,
    legend_above,
    paper_axes,
    quiet,
    with_unit,
)
from nodelens.figures.values import Array, layer_scores, missing_note, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_supernodes"]


def plot_supernodes(
    scores: Any,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    score: str | None = None,
    core: Any = None,
    share: float = 0.01,
    named: int = 5,
    name: str | None = None,
    unit: str | None = None,
) -> Axes:
    """Return axes with every unit's score against its rank, both logarithmic, supernodes marked.

    `scores` is `(units,)`, or a LensResult or `{layer: (units,)}`, of which `layer` is meant (the
    first by default). `core` are the numbers of the supernodes, such as `select_supernodes` gives;
    without it the top `share`, at least one. The `named` highest have their numbers beside them.
    Scores of 0 or below have no place on a logarithmic axis: they are left out with those that are
    not finite, and the axis says how many.

    Raises InvalidValueError for an unknown layer, a unit that is none, or no score above 0.
    """
    if hasattr(scores, "items"):
        given = layer_scores(scores, score, name, unit)
        values = given.values[_layer(given.layers, layer)]
        title = with_unit(given.name, given.unit)
    else:
        values, title = numbers(scores), with_unit(name or "score", unit or "")
    if values.ndim != 1:
        raise ShapeError(f"scores have shape {values.shape}, expected (units,)")
    drawn = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    if np.isnan(drawn).all():
        raise InvalidValueError(f"none of {len(values)} scores is above 0, expected at least one")
    from matplotlib.ticker import FuncFormatter

    order = np.argsort(-drawn, kind="stable")[: int(np.isfinite(drawn).sum())]
    ax = paper_axes(ax, SINGLE, 2.4)
    _draw(ax, drawn, order, _core(core, share, order, len(values)))
    _name(ax, drawn, order[:named])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    note = missing_note(drawn, "unit", "not above 0")
    label_axes(ax, f"rank of the unit{note}", title)
    legend_above(ax)
    quiet(ax, grid="y")
    return ax


def _layer(layers: list[str], layer: str | None) -> str:
    if layer is not None and layer not in layers:
        raise InvalidValueError(
            f"there is no layer {layer!r}{nearest(layer, layers)}, expected one of "
            f"{', '.join(layers)}"
        )
    return layer if layer is not None else layers[0]


def _core(core: Any, share: float, order: Any, units: int) -> Any:
    if core is None:
        if not 0 < share <= 1:
            raise InvalidValueError(f"share is {share}, expected a fraction above 0 and up to 1")
        return order[: max(1, round(share * units))]
    chosen = numbers(core).astype(int).ravel()
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < units:
        wrong = chosen.min() if chosen.min() < 0 else chosen.max()
        raise InvalidValueError(f"the core holds {wrong}, expected numbers from 0 to {units - 1}")
    return chosen


def _draw(ax: Axes, values: Array, order: Any, core: Any) -> None:
    inside = np.isin(order, core)
    place = np.arange(1, len(order) + 1)
    for chosen, label, colour, size in (
        (~inside, "others", GREY, 2.4),
        (inside, "supernodes", COLOURS[1], 4.0),
    ):
        ax.plot(
            place[chosen],
            values[order][chosen],
            linestyle="none",
            marker="o",
            markersize=size,
            markeredgewidth=0,
            color=colour,
            label=f"{label} ({int(chosen.sum()):,})",
        )


def _name(ax: Axes, values: Array, units: Any) -> None:
    for place, unit in enumerate(units, start=1):
        # Right and left in turns: neighbours in rank are near each other.
        right = place % 2
        ax.annotate(
            str(unit),
            (place, values[unit]),
            xytext=(3, 2) if right else (-3, -7),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=6.5,
            color=TEXT,
        )
