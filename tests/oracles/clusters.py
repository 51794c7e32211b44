"""Influence, halos and k-means clusters by loops, from what the definitions say alone."""

from __future__ import annotations

import numpy as np

from tests.oracles.capture import Array


def influence(weights: Array, spread: Array, groups: int = 1) -> Array:
    """Return abs W, taps summed, times what arrives, `(targets, inputs)`, one weight at a time."""
    targets, width = weights.shape[:2]
    found = np.zeros((targets, width * groups))
    for target in range(targets):
        first = target * groups // targets * width
        for source in range(width):
            taps = np.abs(weights[target, source]).sum()
            found[target, first + source] = taps * spread[first + source]
    return found


def relative_influence(influence: Array, members: list[int]) -> Array:
    """Return the share of every target's influence that members hold."""
    return np.array([row[members].sum() / row.sum() for row in influence])


def nearest_centroid(points: Array, labels: Array) -> Array:
    """Return the cluster whose mean is nearest, of every point: k-means' own fixed point."""
    means = [points[labels == k].mean(0) for k in range(labels.max() + 1)]
    return np.array([np.argmin([((p - m) ** 2).sum() for m in means]) for p in points])
