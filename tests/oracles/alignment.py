"""Rayleigh quotients with the covariance matrix written out."""

from __future__ import annotations

import numpy as np

from tests.oracles.capture import Array, Captured
from tests.oracles.rows import group_of, patches, pixels, pooled, windows


def quotient(w: Array, seen: Array, relative: bool, regularization: float) -> float:
    """Return (w' S w + reg w'w) / w'w of one unit, S the covariance of the rows it reads."""
    if not w.any():
        return 0.0
    covariance = np.cov(seen, rowvar=False).reshape(len(w), len(w))
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
    if spatial == "patchwise" and captured.is_convolution:
        return _patchwise(captured, rows, relative, regularization)
    options = {"relative": relative, "regularization": regularization}
    values = []
    for channel, w in enumerate(rows):
        group = group_of(captured, channel)
        if not captured.is_convolution or spatial == "unfold":
            seen = _group_patches(captured, group)
        else:
            maps = captured.inputs[:, group]
            seen = pixels(maps) if spatial == "pixels" else pooled(maps)
            w = w.reshape(seen.shape[1], -1).sum(1)
        values.append(quotient(w, seen, **options))
    return np.array(values)


def _group_patches(captured: Captured, group: slice) -> Array:
    if not captured.is_convolution:
        return patches(captured)
    seen = windows(captured)[:, :, group]
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


def _patchwise(
    captured: Captured, rows: Array, relative: bool, regularization: float
) -> Array:
    """Mean over positions of the quotient among samples there, weighted by the variance there."""
    seen = windows(captured)
    values = []
    for channel, w in enumerate(rows):
        own = seen[:, :, group_of(captured, channel)]
        at = [own[:, p].reshape(len(own), -1) for p in range(own.shape[1])]
        quotients = [quotient(w, patch, relative, regularization) for patch in at]
        values.append(np.average(quotients, weights=[p.var(0, ddof=1).sum() for p in at]))
    return np.array(values)
