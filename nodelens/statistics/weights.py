"""What a score needs of the weights, kept with the statistics so that scoring needs no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Constant
from nodelens.statistics.blocks import elements
from nodelens.statistics.comoments import TILE_SHARE
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample

__all__ = ["RowCosines", "RowNorms", "SingularValues", "Weights"]

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
class RowCosines(Constant):
    """Sum of the cosines of every weight row with the other rows of its group, `(channels,)`.

    With `absolute` that of their sizes, which takes a product of all rows with all. A row of zeros
    has a cosine of 0 with any.
    """

    total: Tensor
    absolute: bool = False

    @classmethod
    def measure(cls, sample: Sample, *, absolute: bool = False) -> Self:
        rows = wide(_by_group(sample))
        length = rows.norm(dim=2, keepdim=True)
        unit = rows.div_(torch.where(length > 0, length, 1))
        if absolute:
            step = max(elements(unit) // (TILE_SHARE * max(len(sample.values), 1)), 1)
            sums = [(part @ unit.mT).abs_().sum(2) for part in unit.split(step, dim=1)]
            found = torch.cat(sums, 1)
        else:
            found = (unit @ unit.sum(1)[:, :, None]).squeeze(2)
        if unit.shape[1] == 1:
            return cls(torch.zeros_like(found).flatten(), absolute)  # not what rounding leaves
        return cls((found - (length > 0).squeeze(2).to(found.dtype)).flatten(), absolute)


@dataclass
class SingularValues(Constant):
    """Singular values of the weight rows of every group, `(groups, rank)`, from the largest.

    Roots of the eigenvalues of the smaller product of the matrix with itself: several times faster
    than a decomposition of the matrix, and good to 1e-8 of the largest in float64.
    """

    singular: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        rows = wide(_by_group(sample))
        short = rows if rows.shape[1] <= rows.shape[2] else rows.mT
        powers = torch.linalg.eigvalsh(short @ short.mT).clamp_(min=0)
        return cls(powers.flip(-1).sqrt())


@dataclass
class Weights(Constant):
    """The weight rows themselves, `(channels, width)`."""

    rows: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.values.detach().clone())


def _by_group(sample: Sample) -> Tensor:
    """The weight rows as `(groups, channels of a group, width)`."""
    groups = 1 if sample.window is None else sample.window.groups
    rows: Tensor = sample.values.unflatten(0, (groups, -1))
    return rows
