"""What weights alone say, from the whole matrix that a layer applies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity

from tests.oracles.capture import Array, Captured
from tests.oracles.rows import group_of


def whole_rows(captured: Captured) -> Array:
    """Return every unit's weights over all inputs, zeros outside its group."""
    if not captured.is_convolution:
        return captured.weight
    taps = int(np.prod(captured.module.kernel_size))  # type: ignore[arg-type]
    whole = np.zeros((len(captured.weight), captured.inputs.shape[1], taps))
    for channel, w in enumerate(captured.weight):
        whole[channel, group_of(captured, channel)] = w.reshape(-1, taps)
    return whole.reshape(len(whole), -1)


def mean_cosine(captured: Captured, absolute: bool = False) -> Array:
    """Return the mean cosine of every row with the others."""
    cosines = cosine_similarity(whole_rows(captured))
    cosines = np.abs(cosines) if absolute else cosines
    if len(cosines) == 1:
        return np.zeros(1)
    return np.array([np.delete(row, i).mean() for i, row in enumerate(cosines)])


def gap(matrix: Array) -> float:
    """Return the relative gap of the two largest singular values."""
    values = np.append(np.linalg.svd(matrix, compute_uv=False), 0)
    return float((values[0] - values[1]) / values[0])


def norm_ratio(matrix: Array) -> float:
    """Return the spectral over the Frobenius norm."""
    return float(np.linalg.norm(matrix, 2) / np.linalg.norm(matrix, "fro"))


def stable_rank(matrix: Array) -> float:
    """Return the squared Frobenius over the squared spectral norm."""
    return float((np.linalg.norm(matrix, "fro") / np.linalg.norm(matrix, 2)) ** 2)


def of_the_group(number: Callable[[Array], float]) -> Callable[[Captured], Array]:
    """Return an oracle that gives every unit the number of its group's matrix."""

    def oracle(captured: Captured) -> Array:
        homes = [group_of(captured, channel).start for channel in range(len(captured.weight))]
        found = {h: number(captured.weight[np.array(homes) == h]) for h in set(homes)}
        return np.array([found[home] for home in homes])

    return oracle
