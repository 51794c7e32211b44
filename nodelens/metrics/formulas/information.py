"""What channels say about targets, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import ratio

__all__ = ["explained_variance", "information_above_noise"]


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


def information_above_noise(variance: Tensor, noise_std: float) -> Tensor:
    """Return 1/2 log(1 + variance / noise_std^2) in nats, elementwise.

    What a Gaussian value says once independent Gaussian noise has been added to it.
    """
    return 0.5 * torch.log1p(variance / noise_std**2)
