"""What the singular values of a weight say of it."""

from __future__ import annotations

from torch import Tensor

from nodelens.metrics.formulas.basics import ratio

__all__ = ["spectral_gap", "spectral_norm_ratio", "stable_rank"]


def spectral_gap(values: Tensor) -> Tensor:
    """Return (s_1 - s_2) / s_1 of singular values `(..., rank)` in falling order, in [0, 1].

    A matrix of rank one has 1, one of zeros 0.
    """
    first = values[..., 0]
    second = values[..., 1] if values.shape[-1] > 1 else 0 * first
    return ratio(first - second, first)


def spectral_norm_ratio(values: Tensor) -> Tensor:
    """Return s_1 over the Frobenius norm, in [1 / sqrt(rank), 1]; 0 for a matrix of zeros."""
    return ratio(values[..., 0], values.norm(dim=-1))


def stable_rank(values: Tensor) -> Tensor:
    """Return the squared Frobenius norm over s_1^2, from 1 to the rank; 0 for zeros."""
    return ratio(values.square().sum(-1), values[..., 0].square())
