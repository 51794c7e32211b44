"""Clusters in the report: whether there are any, figures of every layer, and the numbers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nodelens import figures
from nodelens.experiments.artifacts import (
    CENTROIDS,
    CLUSTER_ABLATIONS,
    CLUSTER_LAYERS,
    CLUSTER_WORTH,
    CLUSTERS,
    RunResults,
)
from nodelens.experiments.stage import Drawing
from nodelens.report import Chapter, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chapter", "drawings", "listed", "number", "p_text", "unstructured"]

_STEADY = 0.8


def drawings(results: RunResults) -> list[Drawing]:
    """Return a figure a layer: its channels in the two metrics that the types differ in most."""
    clusters, layers = results.table(CLUSTERS), results.table(CLUSTER_LAYERS)
    if clusters is None or layers is None:
        return []
    return [
        Drawing(f"clusters_{row.layer}", _alt(row), partial(_draw, clusters, row))
        for row in layers.itertuples()
    ]


def _draw(clusters: pd.DataFrame, row: Any) -> Axes:
    mine = clusters[clusters["layer"] == row.layer]
    features = list(mine.columns[4:])
    ax = figures.plot_clusters(
        mine[features].to_numpy(),
        list(mine["type"]),
        features=features,
        axes=(0, min(1, len(features) - 1)),
        p_value=None if pd.isna(row.p_adjusted) else row.p_adjusted,
    )
    return ax


def _alt(row: Any) -> str:
    if row.verdict == "not tested":
        return f"`{row.layer}`: not compared with noise."
    found = "clusters tighter than noise" if row.verdict == "structure" else "no structure"
    return f"`{row.layer}`: {found} ({p_text(row.p_adjusted)})."


def chapter(results: RunResults) -> Chapter | None:
    """Return what is told of the clusters: first whether noise gives as much."""
    layers = results.table(CLUSTER_LAYERS)
    if layers is None:
        return None
    tables = {"The clusters by layer": _layers(layers)}
    if (centroids := results.table(CENTROIDS)) is not None:
        tables["The centroids, in standard deviations"] = _table(centroids)
    if (ablated := results.table(CLUSTER_ABLATIONS)) is not None:
        tables["Clusters with fewer metrics"] = _ablations(ablated)
    said = [
        _none(layers),
        _worthless(layers),
        _steady(layers),
        _counts(layers),
        _worth(results),
        _needed(ablated),
    ]
    return Chapter(
        name="clustering",
        title="Kinds of channels",
        headline=_headline(layers),
        sentences=[sentence for sentence in said if sentence],
        how=(
            "A mark a channel, in units of standard deviations over its layer. K-means finds"
            " clusters in anything: where a layer has no structure, the types are a way of cutting"
            " a cloud, and what is said of them further down is said of parts of it."
        ),
        tables=tables,
    )


def unstructured(results: RunResults) -> list[str]:
    """Return the layers whose clusters noise gives as well."""
    layers = results.table(CLUSTER_LAYERS)
    if layers is None:
        return []
    return list(layers.loc[layers["verdict"] == "no structure", "layer"])


def listed(names: list[str]) -> str:
    """Return names in backticks as a list in prose."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def p_text(value: Any) -> str:
    """Return a p-value as it stands in prose, never broken over two lines."""
    return f"p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value:.2g}"


def number(value: Any, digits: int = 2) -> str:
    """Return a number as it is read, nothing for a missing one."""
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _headline(layers: pd.DataFrame) -> str:
    there = list(layers.loc[layers["verdict"] == "structure", "layer"])
    if (layers["verdict"] == "not tested").all():
        return "Channels were sorted into types, which were not compared with noise"
    if not there:
        return "No layer has kinds of channels: noise gives clusters as tight"
    if len(there) == len(layers):
        return f"Channels fall into kinds, tighter than noise gives, in {_all(len(layers))}"
    return f"Channels fall into kinds, tighter than noise gives, in {listed(there)} alone"


def _all(layers: int) -> str:
    return "every hidden layer" if layers > 1 else "the hidden layer"


def _none(layers: pd.DataFrame) -> str:
    rows = layers[layers["verdict"] == "no structure"]
    if rows.empty:
        return ""
    named = [f"`{row.layer}` ({p_text(row.p_adjusted)})" for row in rows.itertuples()]
    return f"No structure: {', '.join(named)}. Types are none there."


def _worthless(layers: pd.DataFrame) -> str:
    """Say where clusters may tell nothing but dead channels from living ones."""
    if "worthless" not in layers:
        return ""
    many = layers[(layers["verdict"] == "structure") & (layers["worthless"] > 1)]
    named = [f"{row.worthless} of {row.channels} in `{row.layer}`" for row in many.itertuples()]
    if not named:
        return ""
    return (
        f"Channels of importance 0: {', '.join(named)}. Clusters may be there because these are"
        " unlike the others, and for no other reason."
    )


def _steady(layers: pd.DataFrame) -> str:
    known = layers.dropna(subset=["stability"])
    if known.empty:
        return ""
    low = list(known.loc[known["stability"] < _STEADY, "layer"])
    span = f"{known['stability'].min():.2f} to {known['stability'].max():.2f}"
    said = f"Over channels drawn with replacement clusters agree by {span} (adjusted Rand index)"
    if low:
        said += f"; below {_STEADY:g}, as in {listed(low)}, a single channel's type is luck"
    return f"{said}."


def _counts(layers: pd.DataFrame) -> str:
    kinds = ("critical", "redundant", "synergistic", "background")
    total = {kind: int(layers[kind].sum()) for kind in kinds}
    told = ", ".join(f"{count} {kind}" for kind, count in total.items())
    return f"Of {int(layers['channels'].sum()):,} channels in hidden layers: {told}."


def _worth(results: RunResults) -> str:
    """Say how types rank by the importance that the configuration names, if it does."""
    worth = results.table(CLUSTER_WORTH)
    if worth is None:
        return ""
    told = ", ".join(f"{row.type} {row.mean_rank:.2f}" for row in worth.itertuples())
    return f"Mean rank by `{worth['score'][0]}` within layers, 0 to 1: {told}."


def _needed(ablated: pd.DataFrame | None) -> str:
    if ablated is None:
        return ""
    means = ablated[ablated["features"] != "all"].groupby("features", sort=False)["ari"].mean()
    best = str(means.idxmax())
    return (
        f"Of fewer metrics `{best}` gives the clusters most alike to those of all three (adjusted"
        f" Rand index {means[best]:.2f}, mean over layers)."
    )


def _layers(layers: pd.DataFrame) -> Table:
    shown = {
        "layer": "layer",
        "verdict": "verdict",
        "p_adjusted": "p, adjusted",
        "silhouette": "silhouette",
        "within": "within",
        "within_noise": "within, noise",
        "stability": "stability",
        "gap_clusters": "clusters by gap",
        **{kind: kind for kind in ("critical", "redundant", "synergistic", "background")},
    }
    rows = [[_cell(row[key]) for key in shown] for _, row in layers.iterrows()]
    return Table(list(shown.values()), rows)


def _table(table: pd.DataFrame) -> Table:
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return Table(list(table.columns), rows)


def _cell(value: Any) -> str:
    if isinstance(value, (str, bool)):
        return str(value)
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _ablations(ablated: pd.DataFrame) -> Table:
    """Return agreement with all three metrics, layers (row) by features (column)."""
    wide = ablated.pivot_table(index="layer", columns="features", values="ari", sort=False)
    named = zip(wide.index, wide.to_numpy(), strict=True)
    rows = [[str(layer), *(number(value) for value in row)] for layer, row in named]
    return Table(["adjusted Rand index", *map(str, wide.columns)], rows)
