"""How a quantity changes with depth: a line over the layers, or where the layer's channels lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError
from nodelens.figures.layers import layer_ticks
from nodelens.figures.style import (
    COLOURS,
    SINGLE,
    label_axes,
    legend_above,
    line_style,
    paper_axes,
    quiet,
    with_unit,
)
from nodelens.figures.values import Array, LayerScores, layer_scores, missing_note, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_depth"]


def plot_depth(
    values: Any,
    ax: Axes | None = None,
    *,
    score: str | None = None,
    name: str | None = None,
    unit: str | None = None,
    log: bool = False,
) -> Axes:
    """Return axes with a quantity over the layers, first layer left.

    `values` is a LensResult, of which `score` is meant, or `{layer: (channels,)}`: the median of
    each layer as a line, on bands of the middle half and the middle 90% of its channels. Or it is
    `{series: {layer: number}}`, or a DataFrame with a row a series and a column a layer (such as
    `RunResults.layer_means`): a line each. `{layer: number}` is one such line. Where a layer has no
    finite value the line has a gap, and the axis says so. `log` is for values above 0; channels of
    0 and below then count as missing.

    Raises InvalidValueError for no layer, or no finite value.
    """
    ax = paper_axes(ax, SINGLE, 2.3)
    if _is_lines(values):
        lines = _lines(values)
        layers = list(dict.fromkeys(layer for line in lines.values() for layer in line))
        found = np.array([[line.get(n, np.nan) for n in layers] for line in lines.values()])
        _draw_lines(ax, list(lines), found)
        note, title = missing_note(found), with_unit(name or "value", unit or "")
    else:
        given = layer_scores(values, score, name, unit)
        given = given.positive() if log else given
        layers, note = given.layers, given.note
        title = with_unit(given.name, given.unit)
        _draw_spread(ax, given)
    if log:
        ax.set_yscale("log")
    label_axes(ax, layer_ticks(ax, layers) + note, title)
    legend_above(ax)
    quiet(ax, grid="y")
    return ax


def _is_lines(values: Any) -> bool:
    """Tell numbers of layers from scores of their channels."""
    if hasattr(values, "score_names"):
        return False
    if hasattr(values, "iterrows") or not len(values):
        return True
    first = next(iter(values.values()))
    return isinstance(first, Mapping) or numbers(first).ndim == 0


def _lines(values: Any) -> dict[str, dict[str, float]]:
    if hasattr(values, "iterrows"):
        values = {str(series): row.to_dict() for series, row in values.iterrows()}
    elif values and not isinstance(next(iter(values.values())), Mapping):
        values = {"": values}
    lines = {
        str(series): {str(layer): float(numbers(value)) for layer, value in line.items()}
        for series, line in values.items()
    }
    if not any(np.isfinite(value) for line in lines.values() for value in line.values()):
        raise InvalidValueError("there is no finite value to draw, expected one of a layer")
    return lines


def _draw_lines(ax: Axes, series: list[str], found: Array) -> None:
    found = np.where(np.isfinite(found), found, np.nan)
    for number, (label, line) in enumerate(zip(series, found, strict=True)):
        ax.plot(
            range(len(line)),
            line,
            **line_style(number),
            linewidth=1.3,
            markersize=3.4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=label or "_line",
        )


def _draw_spread(ax: Axes, given: LayerScores) -> None:
    empty = np.full(5, np.nan)
    table = np.array(
        [
            np.percentile(values, [5, 25, 50, 75, 95]) if len(values) else empty
            for values in given.finite.values()
        ]
    )
    lowest, lower, median, upper, highest = table.T
    places = np.arange(len(table))
    band: dict[str, Any] = {"color": COLOURS[0], "linewidth": 0.0}
    ax.fill_between(places, lowest, highest, alpha=0.16, label="middle 90% of channels", **band)
    ax.fill_between(places, lower, upper, alpha=0.34, label="middle half", **band)
    size = 3.0 if len(table) <= 40 else 0.0
    ax.plot(
        places, median, color=COLOURS[0], linewidth=1.4, marker="o", markersize=size, label="median"
    )
