"""Attention heads, cut out of what an output projection takes in."""

from __future__ import annotations

import numpy as np

from tests.oracles.capture import Array


def heads(values: Array, gradients: Array, size: int) -> dict[str, Array]:
    """Return the four scores of heads that are `size` numbers wide, by registry name."""
    scores: dict[str, list[float]] = {}
    for start in range(0, values.shape[1], size):
        x, g = values[:, start : start + size], gradients[:, start : start + size]
        inner = np.einsum("rd,rd->r", x, g)
        one = {
            "attn_activation_power": np.mean(np.linalg.norm(x, axis=1) ** 2),
            "attn_gradient_power": np.mean(np.linalg.norm(g, axis=1) ** 2),
            "attn_taylor": np.mean(np.abs(inner)),
            "attn_loss_proxy": np.mean(inner**2) / 2,
        }
        for name, score in one.items():
            scores.setdefault(name, []).append(float(score))
    return {name: np.array(found) for name, found in scores.items()}
