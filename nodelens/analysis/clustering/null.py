"""Are there clusters at all? K-means finds four in pure noise; noise with the same metrics says so.

The null keeps every metric's values, and how the metrics correlate by rank, and nothing else: the
values are dealt out anew by a Gaussian copula (Iman and Conover 1982). A cloud that is merely
elongated or skewed is therefore no structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, Integers, array, seeded
from nodelens.errors import InvalidValueError, ShapeError, whole

__all__ = ["StructureTest", "gap_statistic", "kmeans", "structure_test"]

_INITIALISATIONS = 3
"""Of every k-means of a null, and of what is compared with it."""


@dataclass(frozen=True)
class StructureTest:
    """Whether clusters are tighter than those of noise.

    `within` is the share of the sum of squares that is left within clusters, `null_mean` and
    `null_std` that of the null. `p_value` is (r + 1) / (n + 1), r of n null samples being at least
    as tight.
    """

    within: float
    null_mean: float
    null_std: float
    p_value: float
    samples: int
    null: str

    @property
    def z(self) -> float:
        """Return by how many of the null's standard deviations clusters are tighter, 0 if none."""
        return (self.null_mean - self.within) / self.null_std if self.null_std > 0 else 0.0

    def significant(self, level: float = 0.05) -> bool:
        """Return whether noise is tighter at most with probability `level`."""
        return self.p_value <= level


def structure_test(
    points: Array, clusters: int, *, samples: int = 99, seed: int = 42, null: str = "correlated"
) -> StructureTest:
    """Return how k-means clusters of `points` `(channels, features)` compare with those of noise.

    `null` is "correlated": values shuffled under the rank correlations that they have; or
    "independent": every metric shuffled by itself. Of one feature alone a shuffle is the same
    again, so its null is uniform between its ends. Fewer distinct points than clusters: p is 1.
    """
    points = _points(points)
    whole("clusters", clusters, 1)
    whole("samples", samples, 1)
    if null not in ("correlated", "independent"):
        raise InvalidValueError(f"null is {null!r}, expected 'correlated' or 'independent'")
    varying = points[:, points.std(0) > 0]
    if len(np.unique(varying, axis=0)) <= max(clusters, 2):
        return StructureTest(0.0, 0.0, 0.0, 1.0, samples, null)
    kind = null if varying.shape[1] > 1 else "uniform"
    return _tested(varying.tobytes(), varying.shape, clusters, samples, seed, kind)


@lru_cache(maxsize=32)
def _tested(
    data: bytes, shape: tuple[int, int], clusters: int, samples: int, seed: int, kind: str
) -> StructureTest:
    """The test of points that have a null; asked twice of a layer, for its score and its notes."""
    varying = np.frombuffer(data).reshape(shape)
    random = seeded(seed)
    found = within_share(varying, clusters, seed)
    noise = np.array(
        [within_share(_noise(varying, kind, random), clusters, seed) for _ in range(samples)]
    )
    at_least = int((noise <= found * (1 + 1e-9)).sum())
    p_value = (at_least + 1) / (samples + 1)
    return StructureTest(found, float(noise.mean()), float(noise.std()), p_value, samples, kind)


def gap_statistic(
    points: Array, most: int = 8, *, samples: int = 20, seed: int = 42
) -> tuple[int, Array]:
    """Return the number of clusters that the gap statistic finds, and the gaps `(most,)`.

    Tibshirani, Walther and Hastie (2001), the reference being uniform in the box of the principal
    axes: the first k whose gap reaches the largest less its standard error (Dudoit and Fridlyand
    2002; the next one's, as first proposed, stops short of clusters of clusters). 1 means that
    there is no structure.
    """
    points = _points(points)
    whole("most", most, 1)
    whole("samples", samples, 1)
    random = seeded(seed)
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    turned = centred @ axes.T
    low, high = turned.min(0), turned.max(0)
    boxes = [random.uniform(low, high, turned.shape) for _ in range(samples)]
    most = max(1, min(most, len(np.unique(points, axis=0)) - 1))
    gaps, errors = np.zeros(most), np.zeros(most)
    for k in range(1, most + 1):
        logs = np.array([_log_inertia(box, k, seed) for box in boxes])
        gaps[k - 1] = logs.mean() - _log_inertia(turned, k, seed)
        errors[k - 1] = logs.std() * np.sqrt(1 + 1 / samples)
    best = int(gaps.argmax())
    return int(np.flatnonzero(gaps >= gaps[best] - errors[best])[0]) + 1, gaps


def kmeans(
    points: Array, clusters: int, seed: int, n_init: int = 10
) -> tuple[Integers, Array, float]:
    """Return labels `(channels,)`, centroids and inertia of scikit-learn's k-means.

    There are no more clusters than distinct points. Points count to six decimals: where two draws
    of k-means are nearly as good, rounding, such as another cut of a stream, must not choose.
    """
    from sklearn.cluster import KMeans

    points = points.round(6)
    clusters = min(clusters, len(np.unique(points, axis=0)))
    fitted = KMeans(clusters, random_state=seed, n_init=n_init).fit(points)
    return fitted.labels_.astype(np.int64), fitted.cluster_centers_, float(fitted.inertia_)


def within_share(points: Array, clusters: int, seed: int) -> float:
    """Return the share of the sum of squares that k-means leaves within its clusters."""
    inertia = kmeans(points, clusters, seed, _INITIALISATIONS)[2]
    return inertia / float(((points - points.mean(0)) ** 2).sum())


def _points(points: Any) -> Array:
    found = array(points, "points")
    if found.ndim != 2 or not found.size:
        raise ShapeError(f"points have shape {found.shape}, expected (channels, features)")
    return found


def _log_inertia(points: Array, clusters: int, seed: int) -> float:
    inertia = kmeans(points, clusters, seed, _INITIALISATIONS)[2]
    return float(np.log(max(inertia, np.finfo(float).tiny)))


def _noise(points: Array, kind: str, random: np.random.Generator) -> Array:
    if kind == "uniform":
        return random.uniform(points.min(0), points.max(0), points.shape)
    if kind == "independent":
        return random.permuted(points, axis=0)
    ranks = _ranks(random.multivariate_normal(*_normal_scores(points), len(points), method="eigh"))
    return np.take_along_axis(np.sort(points, axis=0), ranks, axis=0)


def _normal_scores(points: Array) -> tuple[Array, Array]:
    """Mean and correlations of the normal scores of the points' ranks."""
    from scipy.stats import norm, rankdata

    scores = norm.ppf(rankdata(points, axis=0) / (len(points) + 1))
    return np.zeros(points.shape[1]), np.atleast_2d(np.corrcoef(scores, rowvar=False))


def _ranks(values: Array) -> Integers:
    found: Integers = np.argsort(np.argsort(values, axis=0), axis=0)
    return found
