"""Sorting the channels of every hidden layer into types, and asking whether there are types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from nodelens.analysis.clustering import (
    ClusterResult,
    MetricSpaceClustering,
    ablations,
    gap_statistic,
    stability,
)
from nodelens.configs import ClusteringConfig, Config
from nodelens.experiments.artifacts import (
    CENTROIDS,
    CLUSTER_ABLATIONS,
    CLUSTER_LAYERS,
    CLUSTER_WORTH,
    CLUSTERS,
    SCORES,
)
from nodelens.experiments.cluster_section import leave_cluster_section
from nodelens.experiments.lenses import check_score
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.sensitivity import hidden_layers
from nodelens.model import ModelWrapper
from nodelens.result import LensResult

__all__ = ["NONE", "STRUCTURE", "UNTESTED", "ClusteringStage", "adjusted"]

STRUCTURE, NONE, UNTESTED = "structure", "no structure", "not tested"
_LEVEL = 0.05
_METRICS = ("quotient", "redundancy", "synergy")


class ClusteringStage(Stage):
    """Writes the type of every channel of the hidden layers, and how far the types are there."""

    name = "clustering"
    needs = ("data", "network", "measure")
    code = (
        "analysis/clustering",
        "analysis/arrays.py",
        "experiments/cluster_section.py",
        "experiments/stages/clusters.py",
    )

    def check(self, run: Run) -> None:
        for key in (*_METRICS, "importance"):
            check_score(run.config, ("clustering", key), getattr(_section(run.config), key))

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        given = _section(config)
        null = (
            f"{given.shuffles} samples of noise with the same values and rank correlations say"
            " whether clusters are tighter than noise's; p-values are adjusted for the number of"
            " layers (Benjamini and Hochberg 1995) and count up to 5%."
            if given.shuffles
            else "No null was asked for: k-means finds clusters in anything."
        )
        return (
            f"The channels of every hidden layer are clustered (k-means, {given.n_clusters}"
            f" clusters, seed {given.seed}) by log {given.quotient}, {given.redundancy} and"
            f" {given.synergy}, each z-scored over the layer. {null} Stability is the mean adjusted"
            f" Rand index over {given.bootstraps} samples of channels."
        )

    def run(self, run: Run) -> str:
        metrics = _metrics(run)
        found: list[ClusterResult] = []
        for number, (layer, scores) in enumerate(metrics.items(), start=1):
            found.append(_clusters(_section(run.config), layer, scores))
            run.advance(number, 2 * len(metrics))
        table = _layers(_section(run.config), found)
        if _section(run.config).importance:
            worth = [scores["importance"] for scores in metrics.values()]
            table["worthless"] = [int((values == 0).sum()) for values in worth]
        run.advance(len(metrics) * 3 // 2, 2 * len(metrics))
        run.folder.write_table(CLUSTERS, pd.concat([_channels(one) for one in found]))
        run.folder.write_table(CENTROIDS, pd.concat([_centroids(one) for one in found]))
        run.folder.write_table(CLUSTER_LAYERS, table)
        if name := _section(run.config).importance:
            run.folder.write_table(CLUSTER_WORTH, _worth(name, metrics, found))
        if _section(run.config).ablations:
            run.folder.write_table(CLUSTER_ABLATIONS, _ablations(run, metrics))
        there = int((table["verdict"] == STRUCTURE).sum())
        tested = "not tested against noise"
        if (table["verdict"] != UNTESTED).all():
            tested = f"{there} of {len(found)} layers tighter than noise"
        return f"{sum(len(one.labels) for one in found):,} channels, {tested}"

    def show(self, run: Run) -> None:
        leave_cluster_section(run, self.name)


def adjusted(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted for their number (Benjamini and Hochberg 1995); missing ones stay.

    >>> adjusted(pd.Series([0.01, float("nan"), 0.04])).tolist()
    [0.02, nan, 0.04]
    """
    from scipy.stats import false_discovery_control

    found = p_values.astype(float).copy()
    known = found.notna()
    if known.any():
        found[known] = false_discovery_control(found[known])
    return found


def _metrics(run: Run) -> dict[str, dict[str, Tensor]]:
    """Return the scores of every hidden layer by what the section calls them."""
    given, result = _section(run.config), LensResult.load(run.folder.path(SCORES))
    named = {key: getattr(given, key) for key in (*_METRICS, "importance")}
    scores = {key: result.scores(name) for key, name in named.items() if name is not None}
    inputs = run.splits.test.tensors[0][:1]
    layers = hidden_layers(ModelWrapper(run.network), inputs, result)
    for key, by_layer in scores.items():
        missing = [n for n in layers if n not in by_layer or by_layer[n].ndim != 1]
        if missing:
            raise run.config.error(
                ("clustering", key),
                f"{named[key]!r} has no scores of channels for {', '.join(missing)}; expected every"
                " hidden layer",
            )
    return {name: {key: scores[key][name] for key in scores} for name in layers}


def _clusters(given: ClusteringConfig, layer: str, scores: Mapping[str, Tensor]) -> ClusterResult:
    return _clusterer(given).fit(
        scores["quotient"],
        scores["redundancy"],
        scores["synergy"],
        layer_name=layer,
        importance=scores.get("importance"),
        features=given.features,
        mode=given.mode,
    )


def _clusterer(given: ClusteringConfig) -> MetricSpaceClustering:
    return MetricSpaceClustering(
        given.n_clusters, given.seed, given.type_mapping, shuffles=given.shuffles
    )


def _channels(found: ClusterResult) -> pd.DataFrame:
    points = dict(zip(found.features, found.points.T.numpy(), strict=True))
    return pd.DataFrame(
        {
            "layer": found.layer_name,
            "channel": range(len(found.labels)),
            "type": found.channel_types,
            "cluster": found.labels.numpy(),
            **points,
        }
    )


def _centroids(found: ClusterResult) -> pd.DataFrame:
    sizes = found.labels.bincount(minlength=found.n_clusters).numpy()
    centroids = dict(zip(found.features, found.centroids.T.numpy(), strict=True))
    return pd.DataFrame(
        {
            "layer": found.layer_name,
            "cluster": range(found.n_clusters),
            "type": found.cluster_types,
            "channels": sizes,
            **centroids,
        }
    )


def _layers(given: ClusteringConfig, found: Sequence[ClusterResult]) -> pd.DataFrame:
    """Return a row a layer: how tight its clusters are, beside noise, and how stable."""
    table = pd.DataFrame([_layer(given, one) for one in found])
    table["p_adjusted"] = adjusted(table["p_value"])
    tested = table["p_adjusted"].map(lambda p: STRUCTURE if p <= _LEVEL else NONE)
    table["verdict"] = tested.where(table["p_adjusted"].notna(), UNTESTED)
    return table


def _layer(given: ClusteringConfig, found: ClusterResult) -> dict[str, Any]:
    null = found.structure
    steady = given.bootstraps > 0 and found.mode != "quantile"
    return {
        "layer": found.layer_name,
        "channels": len(found.labels),
        "clusters": found.n_clusters,
        "silhouette": found.silhouette,
        "within": None if null is None else null.within,
        "within_noise": None if null is None else null.null_mean,
        "p_value": None if null is None else null.p_value,
        "stability": (
            stability(found, samples=given.bootstraps, seed=given.seed) if steady else None
        ),
        "gap_clusters": gap_statistic(
            found.points.numpy(), given.n_clusters + 2, samples=10, seed=given.seed
        )[0],
        **{name: found.counts.get(name, 0) for name in _types()},
    }


def _worth(
    name: str, metrics: Mapping[str, Mapping[str, Tensor]], found: Sequence[ClusterResult]
) -> pd.DataFrame:
    """Return the mean rank of each type's channels within their layers, 0 to 1, by a score."""
    parts = [
        pd.DataFrame(
            {
                "type": one.channel_types,
                "rank": pd.Series(metrics[one.layer_name]["importance"].numpy()).rank(pct=True),
            }
        )
        for one in found
    ]
    grouped = pd.concat(parts).groupby("type")["rank"]
    table = grouped.agg(channels="size", mean_rank="mean").reset_index()
    return table.assign(score=name).sort_values("mean_rank", ascending=False)


def _types() -> list[str]:
    from nodelens.analysis.clustering import TYPES

    return list(reversed(TYPES))


def _ablations(run: Run, metrics: Mapping[str, Mapping[str, Tensor]]) -> pd.DataFrame:
    rows = []
    for layer, scores in metrics.items():
        rq, redundancy, synergy = (scores[key] for key in _METRICS)
        clusterer = _clusterer(_section(run.config))
        for name, one in ablations(clusterer, rq, redundancy, synergy, layer).items():
            numbers = {"ari": one.ari, "ami": one.ami, "silhouette": one.silhouette}
            rows.append({"layer": layer, "features": name, **numbers})
        run.advance(len(metrics) + len({row["layer"] for row in rows}), 2 * len(metrics))
    return pd.DataFrame(rows)


def _section(config: Config) -> ClusteringConfig:
    assert config.clustering is not None, "a cluster analysis always has the section"
    return config.clustering
