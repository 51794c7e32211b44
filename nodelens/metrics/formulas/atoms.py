"""What two channels say about a target, divided into what is shared, unique and together, nats.

Gaussian atoms with the minimum mutual information as what is shared (Barrett 2015). Means over
partners of everything but the joint information follow from the channels' own, sorted: no pair is
visited for them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import correlation, gaussian_information, ratio
from nodelens.metrics.formulas.pairs import mean_partner
from nodelens.statistics import CoMoments

__all__ = [
    "information_about",
    "mean_of_others",
    "mean_pair_information",
    "mean_shared",
    "mean_synergy",
    "pair_information",
    "target_correlation",
]

_TILE = 1 << 15
"""Pairs worked on together: what a target dimension reads and writes stays in the cache."""


def target_correlation(cross: Tensor, m2: Tensor, target_m2: Tensor) -> Tensor:
    """Return correlations with the target dimensions that vary, `(channels, dimensions)`.

    From sums of products of deviations `cross` `(channels, targets)` and their diagonals `m2`
    `(channels,)`, `target_m2` `(targets,)`. One column of zeros when no target varies.
    """
    varies = target_m2 > 0
    if not bool(varies.any()):
        return torch.zeros_like(m2)[:, None]
    size = torch.outer(m2.clamp(min=0), target_m2[varies]).sqrt_()
    return ratio(cross[:, varies], size).clamp_(-1, 1)


def information_about(target: Tensor, eps: float) -> Tensor:
    """Return I(T; y_i) for correlations with target dimensions, elementwise."""
    return gaussian_information(target.square(), eps)


def mean_of_others(information: Tensor) -> Tensor:
    """Return the mean over all other channels, `(channels, dimensions)`; 0 for a single one."""
    others = max(len(information) - 1, 1)
    return (information.sum(0) - information) / others


def mean_shared(information: Tensor) -> Tensor:
    """Return the mean over partners of min(I_i, I_j), `(channels, dimensions)`; 0 for no partner.

    Of the channels in ascending order, those before give their own information, those behind this
    channel's.
    """
    channels = len(information)
    values, order = information.sort(0)
    rank = torch.arange(channels, device=values.device, dtype=values.dtype)[:, None]
    total = values.cumsum(0) - values + values * (channels - 1 - rank)
    return torch.empty_like(total).scatter_(0, order, total) / max(channels - 1, 1)


def mean_synergy(pairs: CoMoments, target: Tensor, eps: float) -> Tensor:
    """Return the mean over partners and dimensions of I(T; y_i, y_j) - max(I_i, I_j), `(rows,)`."""
    joint, own = pair_information(pairs, target, eps), information_about(target, eps)
    if len(target) < 2:
        return joint
    better = (own + mean_of_others(own) - mean_shared(own)).mean(1)
    return (joint - better[pairs.start : pairs.start + len(joint)]).clamp_(min=0)


def pair_information(pairs: CoMoments, target: Tensor, eps: float) -> Tensor:
    """Return `mean_pair_information` of all channels that `pairs` has rows for, `(rows,)`."""
    means = [
        mean_pair_information(
            correlation(part.m2, part.squares, part.start), target, eps, part.start
        )
        for part in pairs.parts()
    ]
    return torch.cat(means)


def mean_pair_information(rho: Tensor, target: Tensor, eps: float = 1e-6, start: int = 0) -> Tensor:
    """Return the mean over partners and target dimensions of I(T; y_i, y_j), `(rows,)`.

    `rho` are correlations between channels, all or a block, `target` `(channels, dimensions)` those
    with the target. R^2 is clamped to (1 - eps)^2; of copies the better one counts.
    """
    step = max(_TILE // max(rho.shape[1], 1), 1)
    means = [
        _tile(rho[first : first + step].clone(), target, eps, start + first)
        for first in range(0, len(rho), step)
    ]
    return torch.cat(means)


def _tile(rho: Tensor, target: Tensor, eps: float, start: int) -> Tensor:
    """The same for a few rows, which are written over.

    1 - R^2 is the determinant of the three correlations over that of the two channels, so that all
    target dimensions share the one, and a logarithm is taken of the product of many of the other.
    """
    rho.diagonal(start).zero_()
    floor = 1 - (1 - eps) ** 2
    alone = 1 - rho.square()
    copies = (rho.abs() > 1 - eps).nonzero(as_tuple=True)
    alone[copies] = 1
    lowest, twice = floor * alone, 2 * rho
    logs, product, unexplained = torch.zeros_like(rho), torch.ones_like(rho), torch.empty_like(rho)
    at_once = _factors(floor, rho.dtype)
    mine, dimensions = target[start : start + len(rho)], target.shape[1]
    for t, (a, b) in enumerate(zip(mine.mT.contiguous(), target.mT.contiguous(), strict=True)):
        torch.mul(twice, a[:, None], out=unexplained)
        # (2 rho a - b) b, so that one product does for two terms.
        unexplained.sub_(b).mul_(b).sub_(a.square()[:, None]).add_(alone)
        if len(copies[0]):
            better = torch.maximum(a[copies[0]].abs(), b[copies[1]].abs())
            unexplained[copies] = 1 - better.square()
        product.mul_(torch.maximum(unexplained, lowest, out=unexplained))
        if (t + 1) % at_once == 0 or t + 1 == dimensions:
            logs += product.log()
            product.fill_(1)
    return mean_partner(alone.log_().sub_(logs.div_(dimensions)).mul_(0.5), start=start)


def _factors(floor: float, dtype: torch.dtype) -> int:
    """How many factors, each at least floor squared, a product holds without underflow."""
    return max(int(math.log(torch.finfo(dtype).tiny) / (2 * math.log(floor))), 1)
