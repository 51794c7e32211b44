"""How far clusters hang on one metric, and on which channels happened to be there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nodelens.analysis.arrays import seeded
from nodelens.analysis.clustering.clusters import ClusterResult, MetricSpaceClustering
from nodelens.analysis.clustering.features import FEATURE_SETS
from nodelens.analysis.clustering.null import kmeans
from nodelens.errors import InvalidValueError, whole

__all__ = ["Ablation", "ablations", "stability"]


@dataclass(frozen=True)
class Ablation:
    """Clusters by fewer metrics, and how they agree with those by all.

    `ari` (adjusted Rand index) and `ami` (adjusted mutual information) are 1 for the same clusters
    and 0 for chance; `silhouette` is that of the clusters in their own features.
    """

    result: ClusterResult
    ari: float
    ami: float

    @property
    def silhouette(self) -> float:
        """Return the silhouette in the features that are left."""
        return self.result.silhouette


def ablations(
    clusterer: MetricSpaceClustering,
    rq: Any,
    redundancy: Any,
    synergy: Any,
    layer_name: str = "layer",
    sets: Sequence[str] = tuple(FEATURE_SETS),
) -> dict[str, Ablation]:
    """Return the clusters by each set of features, compared with those by all three."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    # What is compared are partitions: none needs a null of its own.
    plain = MetricSpaceClustering(
        clusterer.n_clusters, clusterer.seed, clusterer.type_mapping, shuffles=0
    )
    full = plain.fit(rq, redundancy, synergy, layer_name).labels.numpy()
    found = {}
    for name in sets:
        result = plain.fit(rq, redundancy, synergy, layer_name, features=name)
        mine = result.labels.numpy()
        found[name] = Ablation(
            result,
            float(adjusted_rand_score(full, mine)),
            float(adjusted_mutual_info_score(full, mine)),
        )
    return found


def stability(result: ClusterResult, *, samples: int = 20, seed: int = 42) -> float:
    """Return the mean adjusted Rand index with clusters of channels drawn with replacement.

    Each bootstrap's centroids are those of the channels drawn; all channels then go to the nearest
    of them. 1: the same clusters each time; 0: no more alike than by chance.

    Raises InvalidValueError for parts by quantiles, which are no clusters.
    """
    from sklearn.metrics import adjusted_rand_score

    whole("samples", samples, 1)
    if result.mode == "quantile":
        raise InvalidValueError("mode 'quantile' cuts channels by importance: it has no clusters")
    random = seeded(seed)
    points, labels = result.points.numpy(), result.labels.numpy()
    agreement = []
    for _ in range(samples):
        drawn = points[random.integers(0, len(points), len(points))]
        centroids = kmeans(drawn, result.n_clusters, seed, n_init=3)[1]
        gaps = ((points[:, None] - centroids) ** 2).sum(2)
        agreement.append(adjusted_rand_score(labels, gaps.argmin(1)))
    return float(np.mean(agreement))
