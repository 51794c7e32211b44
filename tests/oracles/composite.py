"""Scores of several kinds brought to one scale and added, with SciPy and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata, zscore
from sklearn.preprocessing import minmax_scale

from tests.oracles.capture import Array


def weighted_sum(parts: Sequence[tuple[float, Array]], normalise: str = "minmax") -> Array:
    """Return the sum of weight times normalised scores; parts of one value add 0, or half a rank.

    Scores that agree in ten digits of the largest are the same, whatever the last bit is.
    """
    total = np.zeros(len(parts[0][1]))
    for weight, scores in parts:
        total += weight * _normalised(scores, normalise)
    return total


def _normalised(scores: Array, normalise: str) -> Array:
    if np.ptp(_rounded(scores)) == 0:
        return np.full(len(scores), 0.5 if normalise == "rank" else 0.0)
    if normalise == "minmax":
        return minmax_scale(scores)
    if normalise == "zscore":
        return zscore(scores, ddof=1)
    return (rankdata(_rounded(scores), method="average") - 1) / (len(scores) - 1)


def _rounded(scores: Array) -> Array:
    size = np.abs(scores).max()
    return np.round(scores / size, 10) * size if size else scores
