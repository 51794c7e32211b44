"""What the means and variances of every class say about a channel.

`counts` is `(classes,)`, `mean` and `m2` are `(classes, channels)`: rows, means and sums of squared
deviations within the class. Classes without rows are left out of every formula.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import ratio

__all__ = [
    "boundary_distance",
    "class_information",
    "class_spread",
    "class_tuning",
    "left_out_class_quality",
    "log_variance_bias",
    "norm_by_class",
    "pooled_classes",
    "preferred_class_index",
    "scatter",
    "separation",
]


def scatter(counts: Tensor, mean: Tensor, m2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of squares between and within classes, each `(channels,)`."""
    weight, gap = counts.to(mean.dtype)[:, None], _from_first(counts, mean)
    grand = (weight * gap).sum(0) / weight.sum().clamp(min=1)
    return (weight * (gap - grand).square()).sum(0), m2.sum(0)


def _from_first(counts: Tensor, mean: Tensor) -> Tensor:
    """Class means minus that of the first class with rows: exactly 0 for a constant channel."""
    return mean - mean[int((counts > 0).int().argmax())]


def log_variance_bias(freedom: Tensor) -> Tensor:
    """Return E log s^2 - log sigma^2 of Gaussian rows, elementwise; `freedom` is that of s^2."""
    half = freedom.double() / 2
    return torch.digamma(half) - half.log()


def pooled_classes(counts: Tensor, freedom: int = 1) -> tuple[Tensor, Tensor]:
    """Return the group of every class `(classes,)`, and the groups' degrees of freedom.

    Classes that leave fewer than `freedom` degrees of freedom after their mean share group 0,
    smallest first and as many as it takes; every other class is a group of its own. What all
    classes together cannot give is one group with too few.
    """
    own = (counts - 1).clamp(min=0)
    order = own.argsort(stable=True)
    ranked = own[order]
    short = int((ranked < freedom).sum())
    reached = int((ranked.cumsum(0) < freedom).sum()) + 1
    pooled = min(max(short, reached), len(own)) if bool((counts[order[:short]] > 0).any()) else 0
    group = torch.empty_like(order)
    group[order[: max(pooled, short)]] = 0
    rest = order[max(pooled, short) :]
    group[rest] = torch.arange(1, len(rest) + 1, device=order.device)
    size = len(rest) + 1
    return group, own.new_zeros(size).index_add_(0, group, own)


def class_information(
    counts: Tensor, mean: Tensor, m2: Tensor, eps: float = 1e-6, corrected: bool = True
) -> Tensor:
    """Return H(y) - sum_c p_c H(y | c) of Gaussians in nats, `(channels,)`.

    Classes of one row are pooled. `corrected` takes out what small samples add (the digamma
    function gives the expectation of a logarithm of chi-squared exactly), so that a channel
    independent of the class scores 0 on average, and may score below. The share of the variance
    that a class leaves is taken to be at least 1 - (1 - eps)^2.
    """
    group, freedom = pooled_classes(counts)
    between, within = scatter(counts, mean, m2)
    rows, known = counts.sum(), freedom > 0
    inner = m2.new_zeros(len(freedom), m2.shape[1]).index_add_(0, group, m2)[known]
    weight = m2.new_zeros(len(freedom)).index_add_(0, group, counts.to(m2.dtype))[known] / rows
    left, total = freedom[known].to(m2.dtype), (between + within) / (rows - 1)
    share = ratio(inner / left[:, None], total).clamp(min=1 - (1 - eps) ** 2)
    logs = share.log()
    if corrected:
        logs = logs - (log_variance_bias(left) - log_variance_bias(rows - 1))[:, None]
    found = -0.5 * (weight[:, None] * logs).sum(0)
    return torch.where(total > 0, found, torch.zeros_like(found))


def norm_by_class(counts: Tensor, mean: Tensor, m2: Tensor) -> Tensor:
    """Return the root mean square within each class over that of all rows, `(classes, channels)`.

    Only classes with rows; a channel that is always 0 has 0.
    """
    seen = counts > 0
    weight = counts[seen].to(mean.dtype)[:, None]
    square = mean[seen].square() + m2[seen] / weight
    overall = (square * weight).sum(0) / weight.sum()
    return ratio(square, overall.expand_as(square)).sqrt()


def class_spread(norms: Tensor, aggregate: str, eps: float = 1e-6) -> Tensor:
    """Return one number of `(classes, channels)` norms: their mean, max, variance or ratio.

    The ratio is that of the largest and the smallest, the smallest counted as at least `eps`.
    """
    if aggregate == "mean":
        return norms.mean(0)
    if aggregate == "max":
        return norms.amax(0)
    if aggregate == "variance":
        return norms.var(0) if len(norms) > 1 else norms.new_zeros(norms.shape[1])
    return norms.amax(0) / norms.amin(0).clamp(min=eps) * (norms.amax(0) > 0)


def preferred_class_index(means: Tensor) -> Tensor:
    """Return (a - b) / (abs(a) + abs(b)), `(channels,)`, in [0, 1].

    `a` is the largest mean of `(classes, channels)`, `b` the mean of the others (Morcos et al.
    2018). One class, and means that are all 0, give 0.
    """
    if len(means) < 2:
        return means.new_zeros(means.shape[1])
    best = means.amax(0)
    rest = (means.sum(0) - best) / (len(means) - 1)
    return ratio(best - rest, best.abs() + rest.abs()).clamp_(0, 1)


def class_tuning(means: Tensor, mode: str) -> Tensor:
    """Return how unequal class means are, `(channels,)`: 0 when all agree, 1 for one class alone.

    Means `(classes, channels)` with a negative one among them are measured from the lowest. Their
    shares p then give the variance (sum p^2 - 1/K) / (1 - 1/K), "entropy" 1 - H(p) / log K, or the
    Gini coefficient over its largest value, 1 - 1/K.
    """
    classes = len(means)
    raised = means - means.amin(0).clamp(max=0)
    total = raised.sum(0)
    if classes < 2:
        return torch.zeros_like(total)
    share = ratio(raised, total.expand_as(raised))
    found = _inequality(share, mode)
    return torch.where(total > 0, found, torch.zeros_like(found)).clamp_(0, 1)


def _inequality(share: Tensor, mode: str) -> Tensor:
    classes = len(share)
    if mode == "variance":
        return (share.square().sum(0) - 1 / classes) / (1 - 1 / classes)
    if mode == "entropy":
        return 1 + torch.xlogy(share, share).sum(0) / log(classes)
    rank = torch.arange(1, classes + 1, dtype=share.dtype, device=share.device)[:, None]
    return ((2 * rank - classes - 1) * share.sort(0).values).sum(0) / (classes - 1)


def separation(counts: Tensor, mean: Tensor, m2: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the variance between classes over that within, `(channels,)`: Fisher's ratio.

    The share within is taken to be at least 1 - (1 - eps)^2, so that it is finite.
    """
    between, within = scatter(counts, mean, m2)
    share = ratio(within, between + within).clamp(min=1 - (1 - eps) ** 2)
    return ratio(between, (between + within) * share)


def boundary_distance(counts: Tensor, mean: Tensor, m2: Tensor, eps: float = 1e-6) -> Tensor:
    """Return how far class means are from the nearest boundary, `(channels,)`, over the spread.

    A boundary lies halfway between neighbouring means; the distance is in pooled standard
    deviations within classes, averaged over rows. Classes of equal means have 0.
    """
    seen, (between, within) = counts > 0, scatter(counts, mean, m2)
    rows, classes = int(counts.sum()), int((counts > 0).sum())
    if classes < 2:
        return mean.new_zeros(mean.shape[1])
    ordered, order = mean[seen].sort(0)
    gap = ordered.diff(dim=0) / 2
    far = torch.full_like(gap[:1], torch.inf)
    nearest = torch.minimum(torch.cat([far, gap]), torch.cat([gap, far]))
    distance = (nearest * counts[seen].to(mean.dtype)[order]).sum(0) / rows
    floor = (between + within) * (1 - (1 - eps) ** 2)
    spread = (torch.maximum(within, floor) / max(rows - classes, 1)).sqrt()
    return ratio(distance, spread)


def left_out_class_quality(counts: Tensor, mean: Tensor, m2: Tensor, penalty: float) -> Tensor:
    """Return the R^2 of a ridge probe on rows left out of it, `(channels,)`, at most 1.

    The probe predicts the channel from its class (one-hot, with a free constant, `penalty` on the
    squared coefficients). Each row is predicted by the probe of all others; that error has a closed
    form, since all rows of a class have the same leverage. It is compared with that of the mean of
    all other rows. Constant channels score 0.
    """
    n, rows = counts.to(mean.dtype)[:, None], int(counts.sum())
    kept, gap = n / (n + penalty), _from_first(counts, mean)
    pull = penalty * kept
    centre = (pull * gap).sum(0) / pull.sum()
    missed = (1 - kept) * (gap - centre)
    leverage = ratio(kept + (1 - kept) * pull / pull.sum(), n)
    error = ((m2 + n * missed.square()) / (1 - leverage).square()).sum(0)
    between, within = scatter(counts, mean, m2)
    plain = (between + within) * (rows / (rows - 1)) ** 2
    return torch.where(plain > 0, 1 - ratio(error, plain), torch.zeros_like(plain))
