"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError

__all__ = [
    "clamped_pairs",
    "correlation",
    "explained_variance",
    "gaussian_information",
    "mean_partner",
    "pair_synergy",
    "pair_synergy_of_classes",
    "ratio",
    "rayleigh_quotient",
    "row_correlation",
]


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient elementwise, 0 where the denominator is 0."""
    safe = torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return torch.where(denominator == 0, torch.zeros_like(numerator * safe), numerator / safe)


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


def clamped_pairs(rho: Tensor, eps: float = 1e-6, start: int = 0) -> int:
    """Return how many pairs of different channels have abs(rho) above 1 - eps.

    Of a block those with a later channel, so that blocks add up.
    """
    return int((rho.abs() > 1 - eps).triu(start + 1).sum())


def explained_variance(cross: Tensor, m2: Tensor, target_m2: Tensor) -> Tensor:
    """Return the squared multiple correlation of every channel with the targets, `(channels,)`.

    `cross` is `(channels, targets)`, `m2` `(channels,)`, `target_m2` `(targets, targets)`, sums of
    products of deviations. Directions without variance (one-hot columns sum to one) are left out,
    whatever units the targets are in.
    """
    spread = target_m2.diagonal().clamp(min=0).sqrt()
    values, vectors = torch.linalg.eigh(ratio(target_m2, torch.outer(spread, spread)))
    kept = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps * 16
    along = (ratio(cross, spread) @ vectors[:, kept]).square() / values[kept]
    return ratio(along.sum(1), m2).clamp_(0, 1)


def mean_partner(pairs: Tensor, partners: Tensor | None = None, start: int = 0) -> Tensor:
    """Return the mean over partners j != i, shape `(rows,)`; 0 for a single channel.

    `pairs` is `(channels, channels)` or a block, the diagonal ignored; `partners` are column
    numbers `(rows, k)`, all other channels by default.
    """
    rows, channels = pairs.shape
    if channels < 2:
        return pairs.new_zeros(rows)
    if partners is not None:
        return pairs.gather(1, partners).mean(1)
    return (pairs.sum(1) - pairs.diagonal(start)) / (channels - 1)


def pair_synergy(rho: Tensor, target: Tensor, eps: float = 1e-6, start: int = 0) -> Tensor:
    """Return I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)), `(channels, channels)`, in nats.

    Minimum-mutual-information synergy of Gaussians (Barrett 2015), from the correlations between
    channels `rho`, all or a block, and those with one target dimension `target` `(channels,)`.
    Channels that copy one another have none.
    """
    a, b = target[start : start + len(rho), None], target[None, :]
    single = torch.maximum(a.square(), b.square())
    # R^2 of two predictors, as the better one's plus what the other adds: never below it.
    best = torch.where(a.abs() >= b.abs(), a, b)
    rest = torch.where(a.abs() >= b.abs(), b, a)
    added = ratio((rest - rho * best).square(), 1 - rho.square())
    added = torch.where(rho.abs() > 1 - eps, torch.zeros_like(added), added)
    both = gaussian_information(single + added, eps)
    return both - gaussian_information(single, eps)


def pair_synergy_of_classes(
    total: Tensor,
    within: Tensor,
    eps: float = 1e-6,
    *,
    variance: Tensor | None = None,
    inner: Tensor | None = None,
    start: int = 0,
) -> Tensor:
    """Return the MMI synergy of every pair about the class, `(channels, channels)`, in nats.

    Every term compares the determinant of the total covariance with that of the pooled
    within-class one (`total` and `within`, sums of products of deviations, all or a block, with the
    diagonals `variance` and `inner` `(channels,)` of the whole), so it is never negative. The
    unexplained share of a variance is taken to be at least 1 - (1 - eps)^2.
    """
    variance = total.diagonal() if variance is None else variance
    inner = within.diagonal() if inner is None else inner
    floor, mine = 1 - (1 - eps) ** 2, slice(start, start + len(total))
    share = ratio(inner, variance).clamp(floor, 1)
    single = torch.where(variance > 0, -0.5 * torch.log(share), torch.zeros_like(share))
    scale = torch.outer(variance[mine], variance)
    outer_det = 1 - ratio(total.square(), scale)
    inner_det = ratio(torch.outer(inner[mine], inner) - within.square(), scale)
    copies = outer_det <= floor
    joint_share = ratio(inner_det, torch.where(copies, torch.ones_like(outer_det), outer_det))
    joint = -0.5 * torch.log(joint_share.clamp(floor * floor, 1))
    better = torch.maximum(single[mine, None], single[None, :])
    alone = copies | (scale == 0)
    return torch.where(alone, torch.zeros_like(joint), (joint - better).clamp(min=0))


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
