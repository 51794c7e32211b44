"""Activation times gradient, and weight updates."""

from __future__ import annotations

import numpy as np

from tests.oracles.capture import Array, Captured
from tests.oracles.rows import group_of, pixels, windows


def taylor(values: Array, gradients: Array, *, mode: str = "abs_mean", spatial: str = "rows"):
    """Return E abs(y g), abs(E y g) or E (y g)^2; `spatial="sum"` makes a sample one row."""
    product = values * gradients
    if spatial == "sum" and product.ndim > 2:
        product = product.reshape(*product.shape[:2], -1).sum(-1)
    product = pixels(product)
    if mode == "mean_abs":
        return np.abs(product.mean(0))
    return np.abs(product).mean(0) if mode == "abs_mean" else (product**2).mean(0)


def gradient_alignment(captured: Captured, rule: str = "hebbian") -> Array:
    """Return abs(corr(-dL/dW_i, local update of W_i)) over the entries of row i."""
    y, g = pixels(captured.outputs), pixels(captured.gradients)
    scores = []
    for channel, w in enumerate(captured.weight):
        x = _inputs_of(captured, channel)
        descent = -(g[:, channel] @ x)
        hebbian = y[:, channel] @ x / len(x)
        updates = {
            "hebbian": hebbian,
            "anti_hebbian": -hebbian,
            "oja": hebbian - (y[:, channel] ** 2).mean() * w,
            "input": x.mean(0),
        }
        scores.append(_size_of_correlation(descent, updates[rule]))
    return np.array(scores)


def _inputs_of(captured: Captured, channel: int) -> Array:
    if not captured.is_convolution:
        return captured.inputs
    seen = windows(captured)[:, :, group_of(captured, channel)]
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


def _size_of_correlation(a: Array, b: Array) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(abs(np.corrcoef(a, b)[0, 1]))


def fisher(captured: Captured) -> Array:
    """Return the mean over samples of the squared gradient of a weight row, summed over it."""
    scores = []
    for channel in range(captured.weight.shape[0]):
        g = captured.gradients[:, channel].reshape(len(captured.gradients), -1)
        if captured.is_convolution:
            seen = windows(captured)[:, :, group_of(captured, channel)]
            slopes = np.einsum("sp,spct->sct", g, seen)
        else:
            slopes = g * captured.inputs
        scores.append((slopes**2).sum() / len(slopes))
    return np.array(scores)


def scar(units: Array, gradients: Array) -> dict[str, Array]:
    """Return the five scores of the units of an FFN by registry name."""
    product = units * gradients
    return {
        "scar_activation_power": (units**2).mean(0),
        "scar_taylor": np.abs(product).mean(0),
        "scar_curvature": (gradients**2).mean(0),
        "scar_loss_proxy": 0.5 * (product**2).mean(0),
        "scar_loss_proxy_factored": 0.5 * (units**2).mean(0) * (gradients**2).mean(0),
    }
