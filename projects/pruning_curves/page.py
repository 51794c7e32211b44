"""The table, the figure and the CSV files made from the curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot

from nodelens.figures import plot_sensitivity

__all__ = ["section", "summary"]

SHOWN = 6
"""How many strategies the figure draws beside chance and magnitude."""


def section(
    name: str, title: str, curves: pd.DataFrame, refused: dict[str, str], docs: Path
) -> str:
    """Write the figure and the CSV of a network and return its part of the page."""
    table = summary(curves)
    curves.to_csv(docs / "data" / f"pruning-curves-{name}.csv", index=False, float_format="%.5g")
    _figure(curves, table, docs / "images" / f"pruning-curves-{name}.png")
    amounts = [column for column in table.columns if isinstance(column, float)]
    head = " | ".join(f"{amount:.0%}" for amount in amounts)
    lines = [
        f"## {title}",
        "",
        f"![Accuracy against channels silenced](images/pruning-curves-{name}.png)",
        "",
        f"All points: [CSV](data/pruning-curves-{name}.csv). *area* is the mean accuracy over the",
        "amounts below; a row of random orders has the mean of five seeds and, in brackets, the",
        "least and the greatest; every other strategy that draws at random drew once.",
        "",
        _ranking(curves, table),
        "",
        f"| strategy | area | {head} | scoring, s |",
        f"|---|--:|{'--:|' * len(amounts)}--:|",
    ]
    for strategy, row in table.iterrows():
        cells = " | ".join(str(row[f"shown {amount}"]) for amount in amounts)
        lines.append(f"| {strategy} | {row['area']:.3f} | {cells} | {row['seconds']:.2f} |")
    if refused:
        lines += ["", "Not for this network, with the reason that was given:", ""]
        by_reason: dict[str, list[str]] = {}
        for strategy, reason in refused.items():
            own = reason.replace(f"strategy '{strategy}': ", "").replace(f"lens '{strategy}'", "it")
            by_reason.setdefault(own, []).append(f"`{strategy}`")
        lines += [f"- {', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([*lines, ""])


def _ranking(curves: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say where random orders and magnitude stand among all the others, whatever it is."""
    drawn = curves[(curves["score"] == "random") & (curves["amount"] > 0)]
    seeds = drawn.groupby("seed")["accuracy"].mean()
    others = table["area"].drop(["random", "magnitude"])
    magnitude = table["area"]["magnitude"]
    return (
        f"By area: random {seeds.mean():.3f} ({seeds.min():.3f} to {seeds.max():.3f}), magnitude "
        f"{magnitude:.3f}.\nAbove magnitude: {(others > magnitude).sum()} of the {len(others)} "
        f"others; above every random order: {(others > seeds.max()).sum()}; below every random "
        f"order: {(others < seeds.min()).sum()}."
    )


def summary(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row a strategy, from the best area under the curve to the worst."""
    pruned = curves[curves["amount"] > 0]
    by = pruned.groupby(["score", "amount"])["accuracy"]
    table = by.mean().unstack()
    spread = by.agg(["min", "max", "mean", "size"])
    for amount in list(table.columns):
        table[f"shown {amount}"] = [_shown(spread.loc[(score, amount)]) for score in table.index]
    table["area"] = pruned.groupby("score")["accuracy"].mean()
    table["seconds"] = pruned.groupby("score")["seconds"].mean()
    return table.sort_values("area", ascending=False)


def _shown(spread: pd.Series) -> str:
    if spread["size"] == 1:
        return f"{spread['mean']:.1%}"
    return f"{spread['mean']:.1%} ({spread['min']:.1%} to {spread['max']:.1%})"


def _figure(curves: pd.DataFrame, table: pd.DataFrame, path: Path) -> None:
    """Chance and magnitude, the best, and some evenly over the ranks below."""
    distinct = table.drop(index=["random", "magnitude"]).drop_duplicates("area")
    others = distinct.index[distinct["area"] != table["area"]["magnitude"]]
    step = max(1, (len(others) - 1) // (SHOWN - 1))
    shown = ["random", "magnitude", *others[::step][:SHOWN]]
    picked = curves[curves["score"].isin(shown)]
    ordered = picked.assign(rank=picked["score"].map(shown.index)).sort_values(["rank", "amount"])
    axes = plot_sensitivity(ordered.drop(columns="rank"))
    axes.figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close("all")
