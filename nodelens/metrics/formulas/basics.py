"""What every family of formulas is made of."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["correlation", "gaussian_information", "ratio"]


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient elementwise, 0 where the denominator is 0."""
    safe = torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return torch.where(denominator == 0, torch.zeros_like(numerator * safe), numerator / safe)


def correlation(comoment: Tensor, squares: Tensor | None = None, start: int = 0) -> Tensor:
    """Return Pearson correlations from sums of products of deviations, `(channels, channels)`.

    A constant channel correlates 0 with every other; the diagonal is 1 elsewhere. Here and below
    a matrix may be a block `(rows, channels)`, the rows of the whole from `start`; `squares`
    `(channels,)` is then the diagonal of the whole.
    """
    spread = (comoment.diagonal() if squares is None else squares).clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(spread), spread)
    mine = scale[start : start + len(comoment)]
    return (comoment * mine[:, None]).mul_(scale).clamp_(-1, 1)


def gaussian_information(squared_correlation: Tensor, eps: float = 1e-6) -> Tensor:
    """Return -1/2 log(1 - rho^2) in nats, elementwise, with rho clamped to 1 - eps."""
    ceiling = (1 - eps) ** 2
    return squared_correlation.clamp(0, ceiling).neg_().log1p_().mul_(-0.5)
