"""Moments, extremes and near-zero counts of every channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Additive, Statistic
from nodelens.statistics.blocks import Block
from nodelens.statistics.kernels import Asked, Survey
from nodelens.statistics.reduce import channel_sum, mix, wide
from nodelens.statistics.sample import Sample

__all__ = ["AbsoluteMean", "CentralMoments", "Extremes", "Mean", "Moments", "NearZero"]


@dataclass
class CentralMoments(Statistic):
    """Rows, mean and sums of central powers, each `(channels,)`, however they were measured.

    `m2` is the sum of squared deviations from the mean; `m3` and `m4` may be missing. Merged with
    the formulas of Pébay (2008).
    """

    rows: int
    mean: Tensor
    m2: Tensor
    m3: Tensor | None = None
    m4: Tensor | None = None

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        if (self.m4 is None) != (other.m4 is None):
            other = type(other)(other.rows, other.mean, other.m2)
            self.m3 = self.m4 = None
        share, weight = mix(self.rows, other.rows)
        gap = other.mean.to(self.mean.dtype) - self.mean
        if self.m3 is not None and self.m4 is not None and other.m3 is not None:
            self._merge_high(other, gap)
        self.m2.add_(other.m2).addcmul_(gap, gap, value=weight)
        self.mean.add_(gap, alpha=share)
        self.rows += other.rows

    def _merge_high(self, other: Self, gap: Tensor) -> None:
        assert self.m3 is not None and self.m4 is not None
        assert other.m3 is not None and other.m4 is not None
        n = max(self.rows + other.rows, 1)
        a, b = self.rows / n, other.rows / n
        m3, m2, square = other.m3.to(gap.dtype), other.m2.to(gap.dtype), gap * gap
        spread = torch.add(m2 * a**2, self.m2, alpha=b**2)
        skew = torch.sub(m3 * a, self.m3, alpha=b)
        slope = torch.sub(m2 * a, self.m2, alpha=b)
        self.m4.add_(other.m4).addcmul_(square, square, value=n * a * b * (a * a - a * b + b * b))
        self.m4.addcmul_(square, spread, value=6).addcmul_(gap, skew, value=4)
        self.m3.add_(m3).addcmul_(square, gap, value=n * a * b * (a - b))
        self.m3.addcmul_(gap, slope, value=3)

    def variance(self) -> Tensor:
        """Return the variance (n - 1 in the divisor), shape `(channels,)`; NaN below two rows."""
        return self.m2 / (self.rows - 1) if self.rows > 1 else torch.full_like(self.m2, torch.nan)

    def values(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "variance": self.variance()}

    def mean_square(self) -> Tensor:
        """Return the mean of the squares, shape `(channels,)`."""
        return self.m2 / max(self.rows, 1) + self.mean.square()


@dataclass
class Moments(CentralMoments, Additive):
    """Moments of every channel's values, to the second order or with `order=4` to the fourth."""

    @classmethod
    def asks(cls, *, order: int = 2) -> Asked:
        return Asked(order=4 if order > 2 else 2)

    @classmethod
    def surveyed(cls, sample: Sample, found: Survey, *, order: int = 2) -> Self:
        higher = (found.m3, found.m4) if order > 2 else ()
        return cls(sample.rows, found.mean, found.m2, *higher)

    @classmethod
    def empty(cls, sample: Sample, *, order: int = 2) -> Self:
        # Sums of powers of d - r, where r is what the centre of the deviations d is off by.
        n, r = sample.rows, sample.residual
        m2 = -n * r**2
        higher = (2 * n * r**3, -3 * n * r**4) if order >= 4 else ()
        return cls(n, sample.refined_mean, m2, *higher)

    def absorb(self, block: Block, sample: Sample) -> None:
        second, *higher = block.power_sums(2 if self.m4 is None else 4)
        self.m2 += second
        if self.m3 is None or self.m4 is None:
            return
        r, (third, fourth) = sample.residual, higher
        self.m3.add_(third).addcmul_(r, second.to(r.dtype), value=-3)
        self.m4.add_(fourth).addcmul_(r, third.to(r.dtype), value=-4)
        self.m4.addcmul_(r * r, second.to(r.dtype), value=6)

    @classmethod
    def joined(cls, mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
        return {"order": order} if (order := max(_order(mine), _order(other))) > 2 else {}


@dataclass
class Extremes(Statistic):
    """Smallest and largest value of every channel, each `(channels,)`."""

    rows: int
    low: Tensor
    high: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.rows, *sample.extremes)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        torch.minimum(self.low, other.low.to(self.low.dtype), out=self.low)
        torch.maximum(self.high, other.high.to(self.high.dtype), out=self.high)
        self.rows += other.rows


@dataclass
class Mean(Statistic):
    """Sum of the values of every channel, `(channels,)`, and the number of rows."""

    rows: int
    total: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.rows, sample.total)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        self.total += other.total
        self.rows += other.rows

    def mean(self) -> Tensor:
        """Return the mean, shape `(channels,)`; 0 without rows."""
        return self.total / max(self.rows, 1)

    def values(self) -> dict[str, Tensor]:
        return {"value": self.mean()}


@dataclass
class AbsoluteMean(Additive, Mean):
    """Sum of the absolute values of every channel, `(channels,)`, and the number of rows."""

    @classmethod
    def asks(cls) -> Asked:
        return Asked(eps=0.0)

    @classmethod
    def surveyed(cls, sample: Sample, found: Survey) -> Self:
        return cls(sample.rows, found.size)

    @classmethod
    def empty(cls, sample: Sample) -> Self:
        return cls(sample.rows, torch.zeros_like(wide(sample.mean)))

    def absorb(self, block: Block, sample: Sample) -> None:
        self.total += channel_sum(block.size)


@dataclass
class NearZero(Additive):
    """How many rows of every channel have an absolute value of at most `eps`, `(channels,)`."""

    rows: int
    count: Tensor
    eps: float

    @classmethod
    def asks(cls, *, eps: float = 0.0) -> Asked:
        return Asked(eps=eps)

    @classmethod
    def surveyed(cls, sample: Sample, found: Survey, *, eps: float = 0.0) -> Self | None:
        return cls(sample.rows, found.small, eps) if found.asked.eps == eps else None

    @classmethod
    def empty(cls, sample: Sample, *, eps: float = 0.0) -> Self:
        return cls(sample.rows, torch.zeros_like(sample.mean, dtype=torch.int64), eps)

    def absorb(self, block: Block, sample: Sample) -> None:
        self.count += block.near_zero(self.eps)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        self.count += other.count
        self.rows += other.rows

    def fraction(self) -> Tensor:
        """Return the fraction of rows near zero, shape `(channels,)`."""
        return wide(self.count.float()) / max(self.rows, 1)

    def values(self) -> dict[str, Tensor]:
        return {"value": self.fraction()}


def _order(options: Mapping[str, Any]) -> int:
    return int(options.get("order", 2))
