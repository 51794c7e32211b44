"""Tables in a terminal: what every row shares, and notes, are said once, above."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

__all__ = ["print_prose", "print_table"]


def print_table(out: Console, title: str, table: pd.DataFrame) -> None:
    """Print a table below its title, what all its rows share, and its notes."""
    notes = list(dict.fromkeys(filter(None, table.get("note", ()))))
    table = table.drop(columns="note", errors="ignore").dropna(axis="columns", how="all")
    shared = [name for name in table if len(table) > 1 and table[name].nunique(dropna=False) == 1]
    out.print(f"\n{title}", style="bold", markup=False)
    if shared:
        facts = (f"{_word(name)} {_cell(table[name].iloc[0])}" for name in shared)
        print_prose(out, ", ".join(facts), style="dim")
    for note in notes:
        print_prose(out, note, style="dim")
    out.print(_printed(table.drop(columns=shared)))


def print_prose(out: Console, text: str, style: str | None = None) -> None:
    """Print text as it is, broken between words where it is a terminal that shows it."""
    out.print(text, style=style, markup=False, soft_wrap=not out.is_terminal)


def _printed(table: pd.DataFrame) -> Table:
    """The table with no column narrower than its longest word, and numbers to the right."""
    from rich.markup import escape
    from rich.table import Table

    printed = Table(box=None, pad_edge=False)
    for name in table:
        words = [word for value in table[name] for word in _cell(value).split(" ")]
        printed.add_column(
            _word(name),
            justify="right" if _is_numbers(table[name]) else "left",
            min_width=max(map(len, words)),
        )
    for row in table.itertuples(index=False, name=None):
        printed.add_row(*(escape(_cell(value)) for value in row))
    return printed


def _is_numbers(column: pd.Series) -> bool:
    return all(isinstance(value, float) or str(value).isdigit() for value in column)


def _word(name: object) -> str:
    return str(name).replace("_", " ")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else _number(value)
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def _number(value: float) -> str:
    if abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
