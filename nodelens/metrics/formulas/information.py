"""What channels say about targets, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import gaussian_information, ratio
from nodelens.metrics.formulas.classes import pooled_classes

__all__ = [
    "explained_variance",
    "information_above_noise",
    "information_bias",
    "information_within_classes",
    "left_out_quality",
    "partial_moments",
]


def explained_variance(cross: Tensor, m2: Tensor, target_m2: Tensor) -> Tensor:
    """Return the squared multiple correlation of every channel with the targets, `(channels,)`.

    `cross` is `(channels, targets)`, `m2` `(channels,)`, `target_m2` `(targets, targets)`, sums of
    products of deviations. Directions without variance (one-hot columns sum to one) are left out,
    whatever units the targets are in.
    """
    cross, target_m2, spread = _varying(cross, target_m2)
    values, vectors = torch.linalg.eigh(target_m2 / torch.outer(spread, spread))
    if not len(values):
        return torch.zeros_like(m2)
    kept = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps * 16
    along = (cross / spread @ vectors[:, kept]).square() / values[kept]
    return ratio(along.sum(1), m2).clamp_(0, 1)


def _varying(cross: Tensor, target_m2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `cross` and `target_m2` of the targets that vary, and the roots of their sums.

    Others say nothing, and a decomposition with a thousand of them, classes that no row is of, may
    not converge.
    """
    varies = target_m2.diagonal() > 0
    kept = target_m2[varies][:, varies]
    return cross[:, varies], kept, kept.diagonal().sqrt()


def information_bias(freedom: Tensor | int, targets: int) -> Tensor:
    """Return what small samples add to -1/2 log(1 - R^2) on average, in nats, elementwise.

    Exact for Gaussians, whatever R: `freedom` is that of the channel's variance (rows - 1, fewer
    when more is held fixed), and more than the number of `targets`.
    """
    left = torch.as_tensor(freedom, dtype=torch.float64)
    return 0.5 * (torch.digamma(left / 2) - torch.digamma((left - targets) / 2))


def information_within_classes(
    counts: Tensor,
    m2: Tensor,
    target_m2: Tensor,
    cross: Tensor,
    eps: float = 1e-6,
    corrected: bool = True,
) -> Tensor:
    """Return sum_c p_c I(y; T | c) of Gaussians in nats, `(channels,)`.

    Sums of products of deviations within every class: `m2` `(classes, channels)`, `target_m2`
    `(classes, targets, targets)`, `cross` `(classes, targets, channels)`. Classes with too few rows
    for a correlation are pooled; `corrected` takes out what small samples add.
    """
    targets = target_m2.shape[1]
    group, freedom = pooled_classes(counts, targets + 1)

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(len(freedom), *values.shape[1:]).index_add_(0, group, values)

    share = summed(counts.to(m2.dtype)) / counts.sum()
    found = torch.zeros_like(m2[0])
    parts = zip(share, freedom.tolist(), summed(m2), summed(target_m2), summed(cross), strict=True)
    for weight, left, own, theirs, joint in parts:
        if left > targets:
            added = information_bias(left, targets) if corrected else 0.0
            told = gaussian_information(explained_variance(joint.mT, own, theirs), eps) - added
            varies = (own > 0) & (theirs.diagonal() > 0).any()
            found += weight * torch.where(varies, told, torch.zeros_like(told))
    return found


def partial_moments(
    cross: Tensor, m2: Tensor, target_m2: Tensor, given: Tensor, eps: float = 1e-10
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `cross`, `m2` and `target_m2` of what the columns `given` leave of all others.

    As of `explained_variance`; `given` is `(targets,)` of bools. A channel or target of which the
    given columns leave less than `eps` of its variance has none.
    """
    held, rest = target_m2[given][:, given], ~given
    through = _inverse(held) @ torch.cat([target_m2[given][:, rest], cross[:, given].mT], 1)
    count = int(rest.sum())
    left = m2 - (cross[:, given] * through[:, count:].mT).sum(1)
    left = torch.where(left > eps * m2, left, torch.zeros_like(left))
    theirs = target_m2[rest][:, rest] - target_m2[rest][:, given] @ through[:, :count]
    varies = theirs.diagonal() > eps * target_m2.diagonal()[rest]
    # What rounding leaves of a column may correlate with others by more than 1.
    theirs = theirs * torch.outer(varies, varies)
    return (cross[:, rest] - cross[:, given] @ through[:, :count]) * varies, left, theirs


def _inverse(m2: Tensor) -> Tensor:
    """The inverse of sums of products on the directions that vary, in whatever units."""
    spread = m2.diagonal().clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(spread), spread)
    units = torch.outer(scale, scale)
    inverse: Tensor = torch.linalg.pinv(m2 * units, hermitian=True)
    return inverse * units


def left_out_quality(
    cross: Tensor, m2: Tensor, target_m2: Tensor, rows: int, penalty: float
) -> Tensor:
    """Return the R^2 of a ridge probe by generalised cross-validation, `(channels,)`, at most 1.

    The probe predicts the channel from the targets, brought to variance 1, with a free constant and
    `penalty` on the squared coefficients. Its error is that on its own rows over the square of one
    minus their mean leverage; it is compared with that of the mean. Constant channels score 0.
    """
    cross, target_m2, spread = _varying(cross, target_m2)
    spread = spread / rows**0.5
    values, vectors = torch.linalg.eigh(target_m2 / torch.outer(spread, spread))
    values = values.clamp(min=0)
    along = (cross / spread @ vectors).square() / (values + penalty)
    freedom = 1 + (values / (values + penalty)).sum()
    shrunk = (along * (2 - values / (values + penalty))).sum(1)
    error = ratio(m2 - shrunk, (rows - freedom).square() * torch.ones_like(m2))
    quality = 1 - ratio(error * (rows - 1) ** 2, m2)
    return torch.where(m2 > 0, quality, torch.zeros_like(m2))


def information_above_noise(variance: Tensor, noise_std: float) -> Tensor:
    """Return 1/2 log(1 + variance / noise_std^2) in nats, elementwise.

    What a Gaussian value says once independent Gaussian noise has been added to it.
    """
    return 0.5 * torch.log1p(variance / noise_std**2)
