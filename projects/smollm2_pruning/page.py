"""The page, its figure and its CSV file, made from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from nodelens.figures.style import COLOURS, GREY, MARKERS, paper_axes, quiet

__all__ = ["written"]

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"

HEAD = """\
# SmolLM2 without some of its feed-forward units

Perplexity of SmolLM2-135M with a part of the 1,536 units of each of its 30 feed-forward blocks
silenced, lowest score first; no weight is written, nothing is trained again. Units are scored on
{calibration:,} tokens of some articles and tested on other articles. *uniform* takes the same share
of every block, *one threshold* compares all blocks' scores; *mean* puts a unit's mean in its place
(FLAP's bias), all others put zero.

{protocol}

In brackets: 95% interval over the blocks of text (normal, on the loss). Random: the mean of three
seeds, and in brackets the least and the greatest. Seconds are of two cores that had other work too.

| order | {amounts} | scoring, s |
|---|{rules}--:|
"""


def written(found: list[dict[str, Any]], calibration: int) -> Path:
    """Write page, figure and CSV and return where the page is."""
    dense, table = found[0], pd.DataFrame(found[1:])
    (DOCS / "data").mkdir(exist_ok=True)
    table.to_csv(DOCS / "data" / "smollm2-pruning.csv", index=False, float_format="%.6g")
    _figure(table, dense["perplexity"], DOCS / "images" / "smollm2-pruning.png")
    amounts = sorted(table["amount"].unique())
    head = HEAD.format(
        calibration=calibration,
        protocol=f"Dense: {dense['protocol']}.",
        amounts=" | ".join(f"{amount:.0%}" for amount in amounts),
        rules="--:|" * len(amounts),
    )
    order = table[table["amount"] == 0.5].groupby("label")["loss"].mean().sort_values()
    lines = [_line(label, table[table["label"] == label], amounts) for label in order.index]
    tail = [
        "",
        "![Perplexity against the share of units silenced](images/smollm2-pruning.png)",
        "",
        "All points: [CSV](data/smollm2-pruning.csv). Made by",
        "`python -m projects.smollm2_pruning`.",
        "",
    ]
    page = DOCS / "smollm2-pruning.md"
    page.write_text(head + "\n".join([*lines, *tail]))
    return page


def _line(label: str, rows: pd.DataFrame, amounts: list[float]) -> str:
    cells = [_cell(rows[rows["amount"] == amount]) for amount in amounts]
    return f"| {label} | {' | '.join(cells)} | {rows['scoring_seconds'].mean():.0f} |"


def _cell(rows: pd.DataFrame) -> str:
    middle = rows["perplexity"].mean()
    several = len(rows) > 1
    low = rows["perplexity"].min() if several else rows["low"].iloc[0]
    high = rows["perplexity"].max() if several else rows["high"].iloc[0]
    return f"{_short(middle)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _figure(table: pd.DataFrame, dense: float, path: Path) -> None:
    ax = paper_axes(None, 4.6, 3.4)
    labels = [label for label in table["label"].unique() if label != "random"]
    for number, label in enumerate(labels):
        line = table[table["label"] == label]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x, y = [0, *line["amount"]], [dense, *line["perplexity"]]
        ax.plot(x, y, color=colour, marker=marker, markersize=3.6, linewidth=1.3, label=label)
    _chance(ax, table[table["label"] == "random"], dense)
    ax.set_yscale("log")
    ax.set_xlabel("share of feed-forward units silenced", fontsize=8)
    ax.set_ylabel("perplexity", fontsize=8)
    ax.legend(fontsize=7, frameon=False)
    quiet(ax, grid="y")
    assert ax.figure is not None
    ax.figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close("all")


def _chance(ax: Axes, rows: pd.DataFrame, dense: float) -> None:
    band = rows.groupby("amount")["perplexity"].agg(["min", "mean", "max"])
    x = [0, *band.index]
    ax.fill_between(x, [dense, *band["min"]], [dense, *band["max"]], color=GREY, alpha=0.28, lw=0)
    ax.plot(x, [dense, *band["mean"]], color="#5c626c", linewidth=1.3, label="random (3 seeds)")
