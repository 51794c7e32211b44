"""Scores of one layer brought to one scale, so that scores with different units can be added.

Scores that differ by less than 1e-9 of the layer's largest are the same up to rounding: what made
something of that difference would depend on how the data were cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas.basics import ratio

__all__ = ["NORMALISATIONS", "minmax", "normalised", "rank", "zscore"]

_ROUNDING = 1e-9


def minmax(scores: Tensor) -> Tensor:
    """Return (s - min) / (max - min), `(channels,)`, in [0, 1]; 0 where all are the same."""
    if _constant(scores):
        return torch.zeros_like(scores)
    low = scores.min()
    return (scores - low) / (scores.max() - low)


def rank(scores: Tensor) -> Tensor:
    """Return the rank from 0 for the lowest to 1 for the highest, `(channels,)`.

    Equal scores share the mean of their ranks; where all are the same, that is 1/2.
    """
    if len(scores) < 2:
        return torch.full_like(scores, 0.5)
    ordered, order = scores.sort()
    new = ordered.diff() > _ROUNDING * scores.abs().max()
    tie = torch.cat([new.new_zeros(1), new]).cumsum(0)
    size = torch.bincount(tie).to(scores.dtype)
    middle = size.cumsum(0) - (size + 1) / 2
    ranks = torch.empty_like(scores)
    ranks[order] = middle[tie]
    return ranks / (len(scores) - 1)


def zscore(scores: Tensor) -> Tensor:
    """Return (s - mean) / standard deviation (n - 1), `(channels,)`; 0 where all are the same."""
    if _constant(scores):
        return torch.zeros_like(scores)
    return ratio(scores - scores.mean(), scores.std())


NORMALISATIONS = {"minmax": minmax, "rank": rank, "zscore": zscore}


def normalised(scores: Tensor, how: str) -> Tensor:
    """Return the scores of a layer under one of `NORMALISATIONS`, by name."""
    if how not in NORMALISATIONS:
        raise InvalidValueError(
            f"normalise is {how!r}{nearest(how, NORMALISATIONS)}, "
            f"expected one of {', '.join(NORMALISATIONS)}"
        )
    return NORMALISATIONS[how](scores)


def _constant(scores: Tensor) -> bool:
    if len(scores) < 2:
        return True
    spread = scores.max() - scores.min()
    return bool(spread <= _ROUNDING * scores.abs().max())
