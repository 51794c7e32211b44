"""What a score needs of the weights, kept with the statistics so that scoring needs no model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Constant
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample

__all__ = ["RowNorms", "Weights"]


@dataclass
class RowNorms(Constant):
    """L1 norm and squared L2 norm of every weight row, each `(channels,)`, and the row's width."""

    l1: Tensor
    squared: Tensor
    width: int

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        rows = wide(sample.values)
        return cls(rows.abs().sum(1), rows.square().sum(1), rows.shape[1])


@dataclass
class Weights(Constant):
    """The weight rows themselves, `(channels, width)`."""

    rows: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.values.detach().clone())
