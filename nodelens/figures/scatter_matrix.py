"""Every two scores against each other, and how alike they rank the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures.layers import MANY, short_names
from nodelens.figures.style import (
    COLOURS,
    DOUBLE,
    GREY,
    MISSING,
    SINGLE,
    TEXT,
    depth_colours,
    paper_axes,
    quiet,
)
from nodelens.figures.values import missing_note, numbers, one_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_scatter_matrix"]

_MOST = 7
_PLACES = ("layer", "channel")


def plot_scatter_matrix(
    data: Any, axes: Any = None, *, scores: Sequence[str] | None = None, ranks: bool = False
) -> Any:
    """Return axes `(scores, scores)`: points below the diagonal, correlations above it.

    `data` is a LensResult, a DataFrame with a row a channel and a column a score (such as
    `RunResults.channels`), or `{score: (channels,)}`. `scores` chooses 2 to 7 of them, the first
    ones by default. With a column `layer`, or a LensResult, colours are layers, first to last, and
    the number above the diagonal is Spearman's correlation within layers, which count by their
    number of channels. The diagonal holds histograms. `ranks` draws ranks within layers, 0 to 1, in
    place of values, for scores of a few very large ones; the diagonal then holds names. Channels
    that miss one of two scores are not among their points, and the title says how many miss any.

    Raises InvalidValueError for fewer than two scores or more than seven, ShapeError for scores of
    unlike length or `axes` of another shape.
    """
    table = _table(data, scores)
    names = [str(name) for name in table if name not in _PLACES]
    missing = int(table[names].isna().any(axis=1).sum())
    note = missing_note([np.nan] * missing + [0.0] * (len(table) - missing), "channel").strip()
    layers = list(dict.fromkeys(table["layer"]))
    shown, own = table.copy(), axes is None
    if ranks:
        shown[names] = table.groupby("layer", sort=False)[names].rank(pct=True)
    axes = _grid(axes, len(names))
    for row, below in enumerate(names):
        for column, across in enumerate(names):
            ax = paper_axes(axes[row, column], 1, 1)
            ax.tick_params(labelsize=6, pad=1.5)
            if row == column:
                _draw_diagonal(ax, across, shown[across], ranks)
            elif row > column:
                _draw_points(ax, shown, across, below, layers)
            else:
                _write_correlation(ax, _correlation(table, across, below))
            _label(ax, row, column, names, ranks)
    if own and 1 < len(layers) <= MANY:
        _add_legend(axes)
    if note:
        axes[0, 0].set_title(note, fontsize=7, color=TEXT, loc="left")
    return axes


def _table(data: Any, scores: Sequence[str] | None) -> pd.DataFrame:
    import pandas

    if hasattr(data, "score_names"):
        table = _of_result(data)
    elif isinstance(data, pandas.DataFrame):
        table = data
    else:
        columns = {str(name): numbers(values) for name, values in data.items()}
        if len({found.shape for found in columns.values()}) > 1:
            shapes = ", ".join(f"{name} {found.shape}" for name, found in columns.items())
            raise ShapeError(f"scores have shapes {shapes}, expected (channels,) of all")
        table = pandas.DataFrame(columns)
    known = [str(name) for name in table if name not in _PLACES]
    names = known[:_MOST] if scores is None else [one_of(n, known, "a score") for n in scores]
    if not 2 <= len(names) <= _MOST or not len(table):
        raise InvalidValueError(
            f"there are {len(names)} scores of {len(table)} channels, expected 2 to {_MOST} scores "
            "of at least one"
        )
    found = table[names].astype(float)
    found = found.where(np.isfinite(found))
    return found.assign(layer=table.get("layer", ""))


def _of_result(result: Any) -> pd.DataFrame:
    rows = result.to_pandas().dropna(subset="channel")
    table = rows.pivot_table(
        index=["layer", "channel"], columns="score", values="value", sort=False, dropna=False
    )
    names = list(dict.fromkeys(rows["score"]))
    found: pd.DataFrame = table.dropna(how="all")[names].reset_index()
    return found


def _grid(axes: Any, count: int) -> Any:
    if axes is None:
        from matplotlib.figure import Figure

        size = SINGLE if count <= 3 else DOUBLE
        first = paper_axes(None, size, size)
        figure = first.figure
        assert isinstance(figure, Figure)
        first.remove()
        axes = figure.subplots(count, count, squeeze=False)
    axes = np.asarray(axes)
    if axes.shape != (count, count):
        raise ShapeError(f"axes have shape {axes.shape}, expected {(count, count)} as the scores")
    return axes


def _draw_diagonal(ax: Axes, name: str, values: pd.Series[float], ranks: bool) -> None:
    """Draw a histogram; of ranks, which are all alike, the score's name."""
    found = values.dropna().to_numpy()
    if ranks:
        ax.set_xlim(-0.05, 1.05)
        ax.text(0.5, 0.5, _broken(name), transform=ax.transAxes, ha="center", va="center")
        ax.texts[-1].set(fontsize=6.5, color=TEXT)
    elif len(found):
        ax.hist(found, bins=20, color=GREY, alpha=0.8)
    ax.set_yticks([])


def _draw_points(ax: Axes, table: pd.DataFrame, x: str, y: str, layers: Sequence[str]) -> None:
    few = len(layers) <= len(COLOURS)
    shades: Sequence[Any] = COLOURS if few else depth_colours(len(layers))
    labels = short_names([str(layer) for layer in layers])[0]
    size = 2.8 if len(table) <= 500 else 1.2
    for layer, label, colour in zip(layers, labels, shades, strict=False):
        mine = table[table["layer"] == layer].dropna(subset=[x, y])
        ax.plot(
            mine[x],
            mine[y],
            linestyle="none",
            marker="o",
            color=colour,
            markersize=size,
            markeredgewidth=0,
            alpha=0.6,
            rasterized=len(table) > 500,
            label=label if len(layers) <= MANY else "_layer",
        )


def _add_legend(axes: Any) -> None:
    handles, names = axes[1, 0].get_legend_handles_labels()
    axes[1, 0].figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=min(len(names), 6),
        fontsize=7,
        labelcolor=TEXT,
        frameon=False,
        markerscale=2,
        handletextpad=0.2,
    )


def _correlation(table: pd.DataFrame, x: str, y: str) -> float:
    """Spearman's correlation within layers, which count by their number of channels."""
    found, weights = [], []
    for _, rows in table.groupby("layer", sort=False):
        both = rows[[x, y]].dropna().rank()
        if len(both) > 2 and both[x].std() > 0 and both[y].std() > 0:
            found.append(float(both[x].corr(both[y])))
            weights.append(len(both))
    return float(np.average(found, weights=weights)) if found else float("nan")


def _write_correlation(ax: Axes, rho: float) -> None:
    from matplotlib import colormaps

    from nodelens.figures.style import DIVERGING

    strong = abs(rho) > 0.62
    missing = np.isnan(rho)
    ax.set_facecolor(MISSING if missing else colormaps[DIVERGING]((rho + 1) / 2))
    ax.text(
        0.5,
        0.5,
        "none" if missing else f"{round(rho, 2) + 0.0:.2f}".replace("-", "−"),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=8,
        color="white" if strong else TEXT,
    )
    ax.set_xticks([])
    ax.set_yticks([])


def _label(ax: Axes, row: int, column: int, names: Sequence[str], ranks: bool) -> None:
    size = 7 if len(names) <= 4 else 6
    across, up = ("rank", "rank") if ranks else (_broken(names[column]), _broken(names[row]))
    if row == len(names) - 1:
        ax.set_xlabel(across, fontsize=size, color=TEXT)
    elif row >= column:
        ax.tick_params(labelbottom=False)
    if column == 0:
        ax.set_ylabel(up if row or not ranks else "", fontsize=size, color=TEXT)
    elif row > column:
        ax.tick_params(labelleft=False)
    if row >= column:
        quiet(ax)
    else:
        ax.spines[:].set_visible(False)
    ax.locator_params(nbins=3) if row > column else None


def _broken(name: str, width: int = 11) -> str:
    """Return a long name on several lines, broken behind an underscore."""
    lines = [""]
    for part in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
