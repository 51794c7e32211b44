"""Weighing terms of different units against each other within one layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import ratio

__all__ = ["minmax", "uniformity"]

_ROUNDING = 1e-12


def minmax(scores: Tensor) -> Tensor:
    """Return scores brought to [0, 1], the smallest 0 and the largest 1; all 0 where all are equal.

    What differs by rounding alone, below 1e-12 of the largest, is equal.
    """
    spread = scores.max() - scores.min()
    if float(spread) <= _ROUNDING * float(scores.abs().max()):
        return torch.zeros_like(scores)
    return ratio(scores - scores.min(), spread)


def uniformity(sizes: Tensor) -> float:
    """Return exp(-sd / mean) of the channels' mean absolute values, in [0, 1].

    1 where all are of one size, or dead; one channel alone has no spread.
    """
    mean = float(sizes.mean())
    if mean == 0 or len(sizes) < 2:
        return 1.0
    return math.exp(-float(sizes.std()) / mean)
