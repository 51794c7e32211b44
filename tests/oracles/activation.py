"""Size, spread and shape of a channel's values, from all of them at once."""

from __future__ import annotations

import numpy as np
import scipy.stats

from tests.oracles.capture import Array


def mean_size(rows: Array) -> Array:
    return np.abs(rows).mean(0)


def mean(rows: Array) -> Array:
    return rows.mean(0)


def variance(rows: Array) -> Array:
    return rows.var(0, ddof=1)


def root_mean_square(rows: Array) -> Array:
    return np.linalg.norm(rows, axis=0) / np.sqrt(len(rows))


def largest_size(rows: Array) -> Array:
    return np.abs(rows).max(0)


def near_zero(rows: Array, eps: float) -> Array:
    return np.count_nonzero(np.abs(rows) <= eps, axis=0) / len(rows)


def excess_kurtosis(rows: Array) -> Array:
    return scipy.stats.kurtosis(rows, axis=0, fisher=True, bias=True)


def outlier_index(rows: Array, q: float = 0.999) -> Array:
    size = np.abs(rows)
    return np.quantile(size, q, axis=0) / (size.mean(0) + 1e-8)
