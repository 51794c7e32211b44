"""Spectra and groups of channels, by scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import laplacian
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from tests.oracles.capture import Array
from tests.oracles.information import mean_over_others


def mean_cosine(rows: Array) -> Array:
    return mean_over_others(cosine_similarity(rows.T))


def shares(rows: Array) -> Array:
    """Return the share of the variance along every principal component."""
    return PCA(svd_solver="full").fit(rows).explained_variance_ratio_


def spectral_entropy(rows: Array) -> Array:
    return np.asarray(entropy(shares(rows)))


def participation_ratio(rows: Array) -> Array:
    return np.asarray(1 / np.square(shares(rows)).sum())


def cluster_gap(rows: Array) -> Array:
    """Return the largest gap from the second eigenvalue of the normalised Laplacian on."""
    affinity = np.abs(np.atleast_2d(np.corrcoef(rows, rowvar=False)))
    np.fill_diagonal(affinity, 0)
    values = np.sort(np.linalg.eigvalsh(laplacian(affinity, normed=True)))
    return np.diff(values)[1:].max() if len(values) > 2 else np.zeros(())
