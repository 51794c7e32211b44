"""Tables for papers: LaTeX's booktabs, every interval behind its mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["latex_table"]


def latex_table(table: pd.DataFrame) -> str:
    """Return a table as LaTeX, names and texts escaped, numbers to three figures.

    Columns `low` and `high` become `95% interval` behind the mean or difference. What is not a
    number is a dash.
    """
    shown = table.apply(lambda column: column.map(_cell))
    if {"low", "high"} <= set(shown.columns):
        ends = [f"[{low}, {high}]" for low, high in zip(shown["low"], shown["high"], strict=True)]
        place = shown.columns.get_loc("low")
        shown = shown.drop(columns=["low", "high"])
        shown.insert(place, "95% interval", ["--" if "--" in both else both for both in ends])
    shown.columns = [str(name).replace("_", " ") for name in shown.columns]
    return str(shown.to_latex(index=False, escape=True))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "--" if value != value else f"{value:.3g}"
    return str(value)
