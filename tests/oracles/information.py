"""Gaussian information in nats: about targets, about other channels, and together with them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from tests.oracles.capture import Array


def nats(squared_correlation: Array | float) -> Array:
    return -0.5 * np.log(1 - np.asarray(squared_correlation))


def as_columns(targets: Array) -> Array:
    """Return numeric targets as columns, class numbers as one-hot columns."""
    if targets.dtype.kind == "i":
        return (targets[:, None] == np.unique(targets)).astype(float)
    return targets.reshape(len(targets), -1)


def about_targets(rows: Array, targets: Array) -> Array:
    """Return -1/2 log(1 - R^2), R^2 that of the regression of each channel on the targets."""
    columns = as_columns(targets)
    fitted = LinearRegression().fit(columns, rows).predict(columns)
    return nats(r2_score(rows, fitted, multioutput="raw_values"))


def about_first_component(rows: Array, inputs: Array) -> Array:
    """Return the information with the inputs' first principal component."""
    component = PCA(n_components=1, svd_solver="full").fit_transform(inputs)[:, 0]
    return nats([np.corrcoef(y, component)[0, 1] ** 2 for y in rows.T])


def pairwise(rows: Array) -> Array:
    """Return the information of every pair of channels, 0 on the diagonal."""
    rho = np.corrcoef(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1])
    np.fill_diagonal(rho, 0)
    return nats(rho**2)


def mean_over_others(pairs: Array) -> Array:
    """Return the mean of every row without its diagonal; a single channel has no other."""
    if len(pairs) == 1:
        return np.zeros(1)
    others = ~np.eye(len(pairs), dtype=bool)
    return np.array([row[other].mean() for row, other in zip(pairs, others, strict=True)])


def nearest_partners(rows: Array, k: int) -> Array:
    """Return the mean information with the k channels that correlate most, by size."""
    pairs = pairwise(rows)
    if len(pairs) == 1:
        return np.zeros(1)
    return np.array([np.sort(np.delete(row, i))[::-1][:k].mean() for i, row in enumerate(pairs)])


def synergy(rows: Array, targets: Array) -> Array:
    """Return I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)), mean over partners and target columns."""
    tables = []
    for column in as_columns(targets).T:

        def information(channels: list[int], target: Array = column) -> float:
            return float(nats(_explained(rows[:, channels], target)))

        tables.append(_pair_table(rows.shape[1], information))
    return mean_over_others(np.mean(tables, 0))


def _explained(predictors: Array, target: Array) -> float:
    """R^2 of a least-squares fit with a constant."""
    design = np.column_stack([np.ones(len(target)), predictors])
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(1 - residual @ residual / ((target - target.mean()) ** 2).sum())


def class_synergy(rows: Array, labels: Array) -> Array:
    """Return the same about a class, every term from one pooled within-class covariance."""
    means = {label: rows[labels == label].mean(0) for label in np.unique(labels)}
    total = np.cov(rows, rowvar=False).reshape(rows.shape[1], -1)
    within = np.cov(rows - np.stack([means[label] for label in labels]), rowvar=False)
    within = within.reshape(total.shape)

    def information(channels: list[int]) -> float:
        block = np.ix_(channels, channels)
        return 0.5 * float(np.linalg.slogdet(total[block])[1] - np.linalg.slogdet(within[block])[1])

    return mean_over_others(_pair_table(rows.shape[1], information))


def _pair_table(channels: int, information: Callable[[list[int]], float]) -> Array:
    """What two channels tell together beyond the better one, for every pair."""
    single = [information([i]) for i in range(channels)]
    table = np.zeros((channels, channels))
    for i, j in combinations(range(channels), 2):
        table[i, j] = table[j, i] = information([i, j]) - max(single[i], single[j])
    return table


def above_noise(rows: Array, noise: float) -> Array:
    """Return how much wider a Gaussian is with the rows' variance than with the noise alone."""
    spread = np.sqrt(rows.var(0, ddof=1) + noise**2)
    return norm.entropy(scale=spread) - norm.entropy(scale=noise)
