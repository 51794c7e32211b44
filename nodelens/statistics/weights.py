"""What a score needs of the weights, kept with the statistics so that scoring needs no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Constant
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample

__all__ = ["RowNorms", "Weights"]

_AT_ONCE = 1 << 16


@dataclass
class RowNorms(Constant):
    """L1 norm and squared L2 norm of every weight row, each `(channels,)`, and the row's width."""

    l1: Tensor
    squared: Tensor
    width: int

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        width = sample.values.shape[1]
        # A few rows at a time: wide copies of a whole weight cost more than the sums.
        parts = sample.values.split(max(_AT_ONCE // max(width, 1), 1))
        sums = [(part.abs().sum(1), part.square().sum(1)) for part in map(wide, parts)]
        l1, squared = zip(*sums, strict=True)
        return cls(torch.cat(l1), torch.cat(squared), width)


@dataclass
class Weights(Constant):
    """The weight rows themselves, `(channels, width)`."""

    rows: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.values.detach().clone())
