"""How weights, inputs and updates point the same way."""

from __future__ import annotations

from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas.basics import ratio

__all__ = ["rayleigh_quotient", "row_correlation"]


def rayleigh_quotient(
    variance: Tensor,
    squared_norm: Tensor,
    total_variance: Tensor | None,
    width: int,
    regularization: float,
) -> Tensor:
    """Return w' (S + reg I) w / w'w, shape `(channels,)`, over the trace of S + reg I if given.

    `variance` is w' S w, the variance of what the row makes of its input; `total_variance` the
    trace of S, `()` or `(channels,)`. A row of zeros scores 0.
    """
    quotient = ratio(variance + regularization * squared_norm, squared_norm)
    if total_variance is None:
        return quotient
    return ratio(quotient, total_variance + regularization * width)


def row_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the absolute Pearson correlation of the rows of `a` and `b`, `(channels,)`, in [0, 1].

    Rows without variance score 0.
    """
    if a.shape != b.shape:
        raise InvalidValueError(f"rows of {tuple(a.shape)} against rows of {tuple(b.shape)}")
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return ratio((a * b).sum(1), size).abs().clamp_(max=1)
