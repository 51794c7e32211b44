"""Clusters of a layer's channels in the space of their metrics, each with a type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nodelens.analysis.arrays import Array, Integers
from nodelens.analysis.clustering.features import METRICS, MetricSpace, checked_importance
from nodelens.analysis.clustering.null import StructureTest, kmeans, structure_test
from nodelens.analysis.clustering.types import (
    TYPES,
    check_mapping,
    types_by_importance,
    types_of,
)
from nodelens.errors import InvalidValueError, NodeLensError, nearest, whole
from nodelens.notebook import html_table

if TYPE_CHECKING:
    from nodelens.analysis.clustering.comparison import Ablation

__all__ = ["MODES", "ClusterResult", "MetricSpaceClustering"]

MODES = ("geometric", "quantile", "importance_reassign", "score_augmented")


@dataclass(frozen=True)
class ClusterResult:
    """Clusters of one layer.

    `labels` `(channels,)` number the clusters, `centroids` `(clusters, features)` are in units of
    the features' standard deviations, `points` `(channels, features)` too. `cluster_types` are by
    cluster, `silhouette` is in [-1, 1], 0 where there is one cluster or one channel each.
    `structure` says whether noise would have given as much; None where that was not asked.
    """

    layer_name: str
    labels: Tensor
    centroids: Tensor
    points: Tensor
    silhouette: float
    cluster_types: tuple[str, ...]
    features: tuple[str, ...]
    mode: str
    structure: StructureTest | None = None

    @property
    def channel_types(self) -> list[str]:
        """Return the type of every channel."""
        return [self.cluster_types[label] for label in self.labels.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many channels are of each type."""
        types = self.channel_types
        return {name: types.count(name) for name in reversed(TYPES) if name in self.cluster_types}

    @property
    def type_mapping(self) -> dict[int, str]:
        """Return the type of every cluster by its number."""
        return dict(enumerate(self.cluster_types))

    @property
    def n_clusters(self) -> int:
        """Return how many clusters there are."""
        return len(self.cluster_types)

    @property
    def has_structure(self) -> bool | None:
        """Return whether clusters are tighter than those of noise at 5%; None if not tested."""
        return None if self.structure is None else self.structure.significant()

    def channels_of(self, name: str) -> Tensor:
        """Return the channels of a type, ascending; none where no cluster has it."""
        if name not in TYPES:
            raise InvalidValueError(
                f"there is no type {name!r}{nearest(name, TYPES)}, "
                f"expected one of {', '.join(TYPES)}"
            )
        return torch.tensor(
            [i for i, mine in enumerate(self.channel_types) if mine == name], dtype=torch.int64
        )

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.counts.items())
        said = f"{self.layer_name}: {counts}; silhouette {self.silhouette:.2f}"
        if self.structure is None:
            return said
        found = "tighter than noise" if self.has_structure else "no structure: noise gives as much"
        return f"{said}; {found} (p = {self.structure.p_value:.3g})"

    def _repr_html_(self) -> str:
        sizes = self.labels.bincount(minlength=self.n_clusters).tolist()
        parts = zip(self.cluster_types, sizes, self.centroids.tolist(), strict=True)
        rows = [(name, size, *centre) for name, size, centre in parts]
        return html_table(("type", "channels", *self.features), rows, str(self))


class MetricSpaceClustering:
    """Clusters channels by log Rayleigh quotient, redundancy and synergy, and names the clusters.

    `type_mapping` is "greedy" (critical has the highest rq - red, of the rest redundant the highest
    red, of the rest synergistic the highest syn), "global" (the best assignment of all, with mild
    penalties across metrics), "global_simple" (without them) or "prototype" (cosines). `shuffles`
    noise samples say whether there is structure at all; 0 leaves that out.
    """

    def __init__(
        self,
        n_clusters: int = 4,
        seed: int = 42,
        type_mapping: str = "greedy",
        *,
        shuffles: int = 99,
    ) -> None:
        check_mapping(type_mapping)
        self.n_clusters = whole("n_clusters", n_clusters, 1)
        self.seed = whole("seed", seed, 0)
        self.type_mapping = type_mapping
        self.shuffles = whole("shuffles", shuffles, 0)

    def fit(
        self,
        rq: Any,
        redundancy: Any,
        synergy: Any,
        layer_name: str = "layer",
        importance: Any = None,
        features: str = "all",
        mode: str = "geometric",
    ) -> ClusterResult:
        """Return the clusters of a layer from its channels' scores, each `(channels,)`.

        `mode`: "geometric" clusters the metrics and names clusters by their centroids;
        "importance_reassign" names them by their mean `importance`; "score_augmented" also clusters
        by it; "quantile" cuts the channels into equal parts of it, and clusters nothing. `features`
        is one of `FEATURE_SETS`.

        Raises ShapeError, NonFiniteError or InvalidValueError, with the layer's name.
        """
        try:
            return self._fit(rq, redundancy, synergy, layer_name, importance, features, mode)
        except NodeLensError as error:
            error.within(f"layer {layer_name!r}")
            raise

    def run_ablations(
        self, rq: Any, redundancy: Any, synergy: Any, layer_name: str = "layer"
    ) -> dict[str, Ablation]:
        """Return what becomes of the clusters with fewer metrics, by the name of the features."""
        from nodelens.analysis.clustering.comparison import ablations

        return ablations(self, rq, redundancy, synergy, layer_name)

    def _fit(
        self,
        rq: Any,
        redundancy: Any,
        synergy: Any,
        layer_name: str,
        importance: Any,
        features: str,
        mode: str,
    ) -> ClusterResult:
        space = MetricSpace.of(rq, redundancy, synergy, features)
        if mode not in MODES:
            raise InvalidValueError(
                f"mode is {mode!r}{nearest(str(mode), MODES)}, expected one of {', '.join(MODES)}"
            )
        worth = None
        if mode != "geometric":
            worth = checked_importance(mode, importance, len(space.points))
        if mode == "score_augmented" and worth is not None:
            space = space.with_feature("importance", worth)
        labels, centroids = self._clusters(space, worth if mode == "quantile" else None)
        return ClusterResult(
            layer_name,
            torch.from_numpy(labels),
            torch.from_numpy(centroids),
            torch.from_numpy(space.points),
            silhouette(space.points, labels),
            tuple(self._types(space, labels, centroids, worth)),
            space.names,
            mode,
            self._structure(space) if mode != "quantile" and self.shuffles else None,
        )

    def _clusters(self, space: MetricSpace, worth: Array | None) -> tuple[Integers, Array]:
        if worth is None:
            labels, centroids, _ = kmeans(space.points, self.n_clusters, self.seed)
            return labels, np.asarray(centroids, dtype=np.float64)
        labels = quantile_labels(worth, self.n_clusters)
        parts = [space.points[labels == k].mean(0) for k in range(labels.max() + 1)]
        return labels, np.array(parts)

    def _types(
        self, space: MetricSpace, labels: Integers, centroids: Array, worth: Array | None
    ) -> list[str]:
        if worth is not None:
            return types_by_importance(
                np.array([worth[labels == k].mean() for k in range(len(centroids))])
            )
        used = np.array([float(name in space.names) for name in METRICS])
        return types_of(space.triples(centroids), used, self.type_mapping)

    def _structure(self, space: MetricSpace) -> StructureTest:
        return structure_test(space.points, self.n_clusters, samples=self.shuffles, seed=self.seed)


def silhouette(points: Array, labels: Integers) -> float:
    """Return scikit-learn's mean silhouette, 0 for one cluster and for one channel each."""
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels)) < len(points):
        return 0.0
    # SciPy's distance: scikit-learn's own, from products, is 1e-8 where two channels are the same.
    return float(silhouette_score(points, labels, metric="minkowski"))


def quantile_labels(importance: Array, parts: int) -> Integers:
    """Return which of equal parts each channel is in, 0 the lowest, `(channels,)`.

    Equal scores are in one part, so that there may be fewer parts.
    """
    edges = np.quantile(importance, np.arange(1, parts) / parts)
    part = np.searchsorted(edges, importance, side="right")
    labels: Integers = np.unique(part, return_inverse=True)[1].astype(np.int64)
    return labels
