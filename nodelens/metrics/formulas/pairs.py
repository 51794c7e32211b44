"""Pairs of channels: what they share, and what they say together, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import gaussian_information, ratio

__all__ = [
    "clamped_pairs",
    "drawn_clamped_pairs",
    "mean_drawn_partner",
    "mean_partner",
    "pair_synergy",
    "pair_synergy_of_classes",
]


def clamped_pairs(rho: Tensor, eps: float = 1e-6, start: int = 0) -> int:
    """Return how many pairs of different channels have abs(rho) above 1 - eps.

    Of a block those with a later channel, so that blocks add up.
    """
    return int((rho.abs() > 1 - eps).triu(start + 1).sum())


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


def mean_drawn_partner(pairs: Tensor, partners: Tensor) -> Tensor:
    """Return the mean over the partners drawn, j != i, `(channels,)`.

    `pairs` is `(partners, channels)`, `partners` the channel numbers of its rows. The only partner
    there is scores 0.
    """
    own = torch.zeros_like(pairs[0])
    own[partners] = 1
    total = pairs.sum(0)
    total[partners] -= pairs.gather(1, partners[:, None])[:, 0]
    return total / (len(partners) - own).clamp_(min=1)


def drawn_clamped_pairs(rho: Tensor, partners: Tensor, eps: float = 1e-6) -> int:
    """Return how many pairs with a partner drawn have abs(rho) above 1 - eps, each counted once."""
    high = rho.abs() > 1 - eps
    high.scatter_(1, partners[:, None], False)
    return int(high.sum()) - int(high[:, partners].sum()) // 2


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
