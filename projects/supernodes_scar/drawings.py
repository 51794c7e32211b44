"""The figures of the study, from its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from nodelens.figures.concentration import plot_concentration
from nodelens.figures.depth import plot_depth
from nodelens.figures.save import save_figure
from nodelens.figures.style import COLOURS, GREY, TEXT, paper_axes, quiet

__all__ = ["draw_all"]


def draw_all(folder: Path, images: Path) -> None:
    """Write every figure as PNG to `images`, from the tables in `folder`."""
    drawings = {
        "concentration": _concentration(pd.read_csv(folder / "channels.csv")),
        "depth": _depth(pd.read_csv(folder / "concentration.csv")),
        "overlap": _overlap(pd.read_csv(folder / "overlap.csv")),
        "kinds": _kinds(pd.read_csv(folder / "kinds.csv")),
    }
    table = pd.read_csv(folder / "perplexity.csv")
    for group in ("removed", "half"):
        drawings[group] = plot_perplexities(_of(table, group))
    for name, axes in drawings.items():
        save_figure(axes, images / f"supernode-{name}.png", dpi=160)
        pyplot.close("all")


def _of(table: pd.DataFrame, group: str) -> pd.DataFrame:
    groups = ["removed", "halo"] if group == "removed" else [group]
    chosen = table[table["group"].isin(groups)].sort_values("perplexity")
    return pd.concat([table[table["group"] == "dense"], chosen])


def _concentration(channels: pd.DataFrame) -> Axes:
    groups = channels.groupby("layer", sort=False)["loss proxy"]
    scores = {str(layer): values.to_numpy() for layer, values in groups}
    return plot_concentration(scores, name="the loss proxy")


def _depth(table: pd.DataFrame) -> Axes:
    names = {"loss proxy, top 1%": "loss proxy", "activation power, top 1%": "activation power"}
    lines = {label: dict(zip(table["layer"], table[n], strict=True)) for n, label in names.items()}
    return plot_depth(lines, name="share that the top 1% hold")


def _overlap(table: pd.DataFrame) -> Axes:
    lines = {
        str(name): dict(zip(rows["layer"], rows["jaccard"], strict=True))
        for name, rows in table.groupby("definition", sort=False)
    }
    return plot_depth(lines, name="Jaccard with the core")


def _kinds(table: pd.DataFrame) -> Axes:
    names = {"head": "attention heads", "unit": "feed-forward units"}
    lines = {
        label: {str(number): share for number, share in enumerate(rows["of_all"])}
        for kind, label in names.items()
        for rows in [table[table["kind"] == kind]]
    }
    return plot_depth(lines, name="share of the loss proxy")


def plot_perplexities(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Return axes with a point a condition on its interval, logarithmic, dense as a line.

    `table` has the columns `condition`, `group`, `perplexity`, `low`, `high`. Random conditions
    are grey.
    """
    rows = table[table["group"] != "dense"]
    ax = paper_axes(ax, 5.0, 0.8 + 0.21 * len(rows))
    for height, (_, row) in enumerate(rows.iloc[::-1].iterrows()):
        colour = GREY if "random" in row["condition"] else COLOURS[0]
        ax.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=1.2)
        ax.plot(row["perplexity"], height, "o", color=colour, markersize=3.6)
    dense = table.loc[table["group"] == "dense", "perplexity"].iloc[0]
    ax.axvline(dense, color=TEXT, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(rows)), list(rows["condition"].iloc[::-1]), fontsize=7)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_xscale("log")
    ax.set_xlabel(f"perplexity (dotted: {dense:.1f}, nothing silenced)", fontsize=8, color=TEXT)
    quiet(ax, grid="x")
    return ax
