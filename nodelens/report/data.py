"""Tables of a run as the page shows them: few digits, and channels by column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nodelens.figures.style import shown_unit
from nodelens.report.page import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_ROWS", "cell", "channel_data", "table_of"]

MOST_ROWS = 2_000
"""Rows of a table that are shown; the others stay in its file."""


def channel_data(
    channels: pd.DataFrame, units: Mapping[str, str], tested: Collection[str]
) -> dict[str, Any]:
    """Return the table of channels as the page's script reads it, four digits a number.

    `layers`, the `counts` of their channels, the number of every channel, then a column of values
    for each of `scores`, and for each of `labels` its names and their numbers by channel. Columns
    that hold text are labels.
    """
    layers = list(dict.fromkeys(channels["layer"]))
    places = channels["layer"].map({layer: index for index, layer in enumerate(layers)})
    ordered = channels.iloc[places.argsort(kind="stable")]
    sizes = ordered["layer"].value_counts()
    columns = list(channels.columns[2:])
    names = [name for name in columns if _is_numeric(ordered[name])]
    shown = [name for name in names if name in tested] or names[:5]
    return {
        "layers": layers,
        "counts": [int(sizes[layer]) for layer in layers],
        "channels": [int(channel) for channel in ordered["channel"]],
        "scores": [
            {
                "name": name,
                "unit": shown_unit(units.get(name, "")),
                "shown": name in shown,
                "values": [_rounded(value) for value in ordered[name].tolist()],
            }
            for name in names
        ],
        "labels": [_labels(ordered[name]) for name in columns if name not in names],
    }


def table_of(frame: pd.DataFrame, *, title: str = "", note: str = "", file: str = "") -> Table:
    """Return the first rows of a data frame as a table of text, four digits a number."""
    rows = [[cell(value) for value in row] for row in frame.head(MOST_ROWS).to_numpy(object)]
    omitted = max(0, len(frame) - MOST_ROWS)
    return Table([str(name) for name in frame.columns], rows, title, note, file, omitted)


def cell(value: Any) -> str:
    """Return a value as text; nothing for what is missing.

    >>> cell(0.123456), cell(12345), cell(float("nan")), cell("conv1")
    ('0.1235', '12345', '', 'conv1')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
        return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text
    return str(value)


def _is_numeric(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf"


def _rounded(value: float) -> float | int | None:
    if value != value or value in (float("inf"), float("-inf")):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _labels(column: pd.Series) -> dict[str, Any]:
    known = column.notna()
    names = list(dict.fromkeys(str(value) for value in column[known]))
    number = {name: index for index, name in enumerate(names)}
    values = [
        number[str(value)] if there else None for value, there in zip(column, known, strict=True)
    ]
    return {"name": str(column.name), "names": names, "values": values}
