"""Tables in a terminal: readable at 80 columns, nothing said twice."""

from __future__ import annotations

from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from nodelens.cli.tables import print_prose, print_table


def terminal(columns: int = 80) -> Console:
    return Console(file=StringIO(), width=columns, force_terminal=True, color_system=None)


def shown(out: Console) -> list[str]:
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_what_all_rows_share_is_said_once_and_numbers_stand_under_each_other():
    out = terminal()
    rows = {
        "experiment": ["first"] * 2,
        "mean": [0.5, -12.25],
        "same_network": [False] * 2,
        "seed": [1, 20],
        "t_p": [None] * 2,
        "note": ["too few", "too few"],
    }
    print_table(out, "Runs", pd.DataFrame(rows))
    assert shown(out) == [
        "",
        "Runs",
        "experiment first, same network no",
        "too few",
        "   mean  seed",
        "  0.500     1",
        "-12.250    20",
    ]


def test_a_row_alone_keeps_its_columns():
    out = terminal()
    row = {"run": ["[a]"], "loss": [1e-5], "parameters": [25000.0]}
    print_table(out, "Runs", pd.DataFrame(row))
    assert shown(out)[2:] == ["run     loss  parameters", "[a]  1.0e-05      25,000"]


@pytest.mark.parametrize("columns", [30, 60])
def test_no_word_is_broken(columns):
    out = terminal(columns)
    names = ["pairwise_redundancy, low first", "rayleigh_quotient, high first"]
    print_table(out, "Tests", pd.DataFrame({"condition": names, "p": [0.5, 0.25]}))
    words = " ".join(shown(out)).split()
    assert {"pairwise_redundancy,", "rayleigh_quotient,", "0.500", "0.250"} <= set(words)


def test_prose_breaks_between_words_in_a_terminal_and_nowhere_in_a_file():
    text = "one two three four five six seven eight nine ten"
    out, file = terminal(20), Console(file=StringIO(), width=20)
    print_prose(out, text)
    print_prose(file, text)
    assert " ".join(shown(out)) == text
    assert len(shown(out)) == 3
    assert file.file.getvalue() == f"{text}\n"
