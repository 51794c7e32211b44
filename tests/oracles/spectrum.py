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


def overlap(rows: Array, reference: Array) -> float:
    """Return 1 minus half the summed differences of two spectra that sum to 1."""
    both = np.zeros((2, max(rows.shape[1], len(reference))))
    both[0, : rows.shape[1]] = np.sort(np.linalg.eigvalsh(np.cov(rows, rowvar=False)))[::-1]
    both[1, : len(reference)] = np.sort(reference)[::-1]
    return float(np.minimum(*(both / both.sum(1, keepdims=True))).sum())


def cluster_gap(rows: Array) -> Array:
    """Return the largest gap from the second eigenvalue of the normalised Laplacian on."""
    affinity = np.abs(np.atleast_2d(np.corrcoef(rows, rowvar=False)))
    np.fill_diagonal(affinity, 0)
    values = np.sort(np.linalg.eigvalsh(laplacian(affinity, normed=True)))
    return np.diff(values)[1:].max() if len(values) > 2 else np.zeros(())
