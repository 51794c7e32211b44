"""Rayleigh quotients with the covariance matrix written out, and principal directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from tests.oracles.capture import Array, Captured
from tests.oracles.rows import group_of, pixels, pooled, windows


def quotient(w: Array, covariance: Array, relative: bool, regularization: float) -> float:
    """Return (w' S w + reg w'w) / w'w of one unit, over the trace if `relative`."""
    if not w.any():
        return 0.0
    value = (w @ covariance @ w + regularization * (w @ w)) / (w @ w)
    if relative:
        value /= np.trace(covariance) + regularization * len(w)
    return float(value)


def rayleigh_quotient(
    captured: Captured,
    *,
    relative: bool = True,
    regularization: float = 1e-6,
    spatial: str = "unfold",
    weight: Array | None = None,
) -> Array:
    """Return the quotient of every unit; `spatial` says what a convolution's input is."""
    rows = captured.weight if weight is None else weight
    known: dict[int, list[tuple[Array, float]]] = {}
    values = []
    for channel, w in enumerate(rows):
        group = group_of(captured, channel)
        if group.start not in known:
            known[group.start] = _covariances(captured, group, spatial)
        covariances, weights = zip(*known[group.start], strict=True)
        if spatial in ("pixels", "gap"):
            w = w.reshape(len(covariances[0]), -1).sum(1)
        each = [quotient(w, covariance, relative, regularization) for covariance in covariances]
        values.append(np.average(each, weights=weights))
    return np.array(values)


def _covariances(captured: Captured, group: slice, spatial: str) -> list[tuple[Array, float]]:
    """Return what a group's units see: one covariance, or one a position with its weight."""
    if not captured.is_convolution:
        return [(_covariance(captured.inputs), 1.0)]
    maps = captured.inputs[:, group]
    if spatial in ("pixels", "gap"):
        return [(_covariance(pixels(maps) if spatial == "pixels" else pooled(maps)), 1.0)]
    seen = windows(captured)[:, :, group]
    if spatial == "unfold":
        return [(_covariance(seen.reshape(seen.shape[0] * seen.shape[1], -1)), 1.0)]
    here = [_covariance(seen[:, p].reshape(len(seen), -1)) for p in range(seen.shape[1])]
    return [(covariance, float(np.trace(covariance))) for covariance in here]


def _covariance(rows: Array) -> Array:
    return np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1])


def conditional_quotient(captured: Captured, **options: Any) -> Array:
    """Return the quotient of the rows of one class, mean over classes by their number of rows."""
    labels = captured.targets
    assert labels is not None
    found, sizes = [], []
    for label in np.unique(labels):
        mine = labels == label
        part = replace(captured, inputs=captured.inputs[mine], outputs=captured.outputs[mine])
        if len(pixels(part.outputs)) > 1:
            found.append(rayleigh_quotient(part, **options))
            sizes.append(mine.sum())
    return np.average(found, axis=0, weights=sizes)


def delta_quotient(captured: Captured, **options: Any) -> Array:
    """Return the quotient of all rows minus that within classes."""
    return rayleigh_quotient(captured, **options) - conditional_quotient(captured, **options)


def principal_cosine(captured: Captured, k: int) -> Array:
    """Return the largest cosine with one of the k leading components, by scikit-learn's PCA."""
    values = []
    for w, rows in _seen_by_unit(captured):
        found = PCA(svd_solver="full").fit(rows)
        varies = found.explained_variance_[:k] > 1e-6 * found.explained_variance_[0]
        cosines = np.abs(found.components_[:k][varies] @ w) / np.linalg.norm(w)
        values.append(cosines.max())
    return np.array(values)


def spectral_alignment(captured: Captured) -> Array:
    """Return |(w'V) l| / (|w| |l|) in the eigenvectors V and eigenvalues l of the covariance."""
    values = []
    for w, rows in _seen_by_unit(captured):
        variances, directions = np.linalg.eigh(_covariance(rows))
        moved = np.linalg.norm((w @ directions) * variances)
        values.append(moved / np.linalg.norm(w) / np.linalg.norm(variances))
    return np.array(values)


def _seen_by_unit(captured: Captured) -> Iterator[tuple[Array, Array]]:
    """Yield the weights of every unit with the rows that they see."""
    seen = windows(captured) if captured.is_convolution else None
    for channel, w in enumerate(captured.weight):
        if seen is None:
            yield w, captured.inputs
        else:
            mine = seen[:, :, group_of(captured, channel)]
            yield w, mine.reshape(mine.shape[0] * mine.shape[1], -1)
