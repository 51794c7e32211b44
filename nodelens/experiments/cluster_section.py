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
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run
from nodelens.report import SectionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["leave_cluster_section", "listed", "p_text", "unstructured"]

_STEADY = 0.8
_TABLES = {
    CLUSTER_LAYERS: "The clusters by layer",
    CENTROIDS: "The centroids, in standard deviations",
    CLUSTER_ABLATIONS: "Clusters with fewer metrics",
}
_SPACE = 3
"""Features of a cloud that is drawn in three dimensions."""


def leave_cluster_section(run: Run, stage: str) -> None:
    """Write what the report says of the clusters: first whether noise gives as much."""
    results = RunResults(run.folder.root)
    clusters, layers = (run.folder.read_table(name) for name in (CLUSTERS, CLUSTER_LAYERS))
    ablated = results.table(CLUSTER_ABLATIONS)
    said = [
        _none(layers),
        _worthless(layers),
        _steady(layers),
        _counts(layers),
        _worth(results),
        _needed(ablated),
    ]
    leave_section(
        run,
        stage,
        _drawings(clusters, layers),
        title="Kinds of channels",
        sentence=f"{_headline(layers)}.",
        findings=tuple(filter(None, said)),
        tables=tuple(
            SectionTable(file=file, title=title)
            for file, title in _TABLES.items()
            if run.folder.has(file)
        ),
        channels=CLUSTERS,
        how=(
            "A mark a channel, in units of standard deviations over its layer. K-means finds"
            " clusters in anything: where a layer has no structure, the types are a way of cutting"
            " a cloud, and what is said of them further down is said of parts of it."
        ),
    )


def _drawings(clusters: pd.DataFrame, layers: pd.DataFrame) -> list[Drawing]:
    """Return shares of types, the channels of every layer, and violins of types."""
    types = {str(name): list(rows["type"]) for name, rows in clusters.groupby("layer", sort=False)}
    alt = "Share of each type among the channels of every hidden layer."
    found = [Drawing("type_shares", alt, partial(figures.plot_type_shares, types))]
    for row in layers.itertuples():
        mine = clusters[clusters["layer"] == row.layer]
        found.append(Drawing(f"clusters_{row.layer}", _alt(row), partial(_draw, mine, row)))
        if len(mine.columns[4:]) == _SPACE:
            alt = f"The channels of `{row.layer}` in all three metrics."
            draw = partial(_draw, mine, row, solid=True)
            found.append(Drawing(f"clusters_3d_{row.layer}", alt, draw))
    for feature in clusters.columns[4:]:
        values = {
            str(name): rows[feature].to_numpy()
            for name, rows in clusters.groupby("type", sort=False)
        }
        alt = f"{feature} of the channels of every type, z-scored over their layers."
        draw = partial(_draw_violins, values, feature)
        found.append(Drawing(f"types_{feature}", alt, draw))
    return found


def _draw_violins(values: Any, feature: str) -> Axes:
    ax = figures.plot_violin(values, name=feature, unit="z")
    ax.set_xlabel("type of channel")
    return ax


def _draw(mine: pd.DataFrame, row: Any, solid: bool = False) -> Axes:
    features = list(mine.columns[4:])
    points, types = mine[features].to_numpy(), list(mine["type"])
    p_value = None if pd.isna(row.p_adjusted) else row.p_adjusted
    if solid:
        return figures.plot_clusters_3d(points, types, features=features, p_value=p_value)
    axes = (0, min(1, len(features) - 1))
    return figures.plot_clusters(points, types, features=features, axes=axes, p_value=p_value)


def _alt(row: Any) -> str:
    if row.verdict == "not tested":
        return f"`{row.layer}`: not compared with noise."
    found = "clusters tighter than noise" if row.verdict == "structure" else "no structure"
    return f"`{row.layer}`: {found} ({p_text(row.p_adjusted)})."


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
