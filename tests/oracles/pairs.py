"""Pairs of channels: means of their correlation, and what two of them say about a target."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from tests.oracles.capture import Array
from tests.oracles.information import as_columns, mean_over_others, nats, pairwise


def layer_mean(rows: Array) -> Array:
    """Return the mean information of two channels, over all pairs."""
    table = pairwise(rows)
    found = [table[i, j] for i, j in combinations(range(len(table)), 2)]
    return np.mean(found) if found else np.zeros(())


def mean_size_of_correlation(rows: Array) -> Array:
    """Return the mean absolute correlation with every other channel."""
    return mean_over_others(np.abs(np.atleast_2d(np.corrcoef(rows, rowvar=False))))


def drawn_partners(rows: Array, partners: Array) -> Array:
    """Return the mean information with those of the channels `partners` that are others."""
    table = pairwise(rows)
    return np.array([row[partners[partners != i]].mean() for i, row in enumerate(table)])


def atoms(rows: Array, targets: Array) -> dict[str, Array]:
    """Return the mean over partners of each atom, and of the joint information, by name."""
    found: dict[str, list[Array]] = {}
    for column in as_columns(targets).T:
        for name, table in _tables(rows, column).items():
            found.setdefault(name, []).append(mean_over_others(table))
    return {name: np.mean(values, 0) for name, values in found.items()}


def _tables(rows: Array, target: Array) -> dict[str, Array]:
    """The atoms of every pair `[channel, partner]`, by regression of the target on both."""
    channels = rows.shape[1]
    own = np.array([_information(rows[:, [i]], target) for i in range(channels)])
    joint = np.zeros((channels, channels))
    for i, j in combinations(range(channels), 2):
        joint[i, j] = joint[j, i] = _information(rows[:, [i, j]], target)
    shared = np.minimum.outer(own, own)
    unique_x, unique_y = own[:, None] - shared, own[None, :] - shared
    return {
        "joint": joint,
        "shared": shared,
        "unique_x": unique_x,
        "unique_y": unique_y,
        "synergy": joint - shared - unique_x - unique_y,
        "interaction": joint - own[:, None] - own[None, :],
    }


def _information(predictors: Array, target: Array) -> float:
    """By least squares on predictors that are orthogonal to a constant, and to each other."""
    basis, _ = np.linalg.qr(predictors - predictors.mean(0))
    centred = target - target.mean()
    return float(nats(np.square(centred @ basis).sum() / (centred @ centred)))
