"""Moments, extremes and near-zero counts of every channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Sample, Statistic, wide
from nodelens.statistics.reduce import centred, channel_mean, channel_sum, mix

__all__ = ["AbsoluteMean", "Extremes", "Mean", "Moments", "NearZero"]


@dataclass
class Moments(Statistic):
    """Rows, mean and sums of central powers of every channel, each `(channels,)`.

    `m2` is the sum of squared deviations from the mean; `m3` and `m4` are there for `order=4`
    (Pébay 2008, whose formulas merge them).
    """

    rows: int
    mean: Tensor
    m2: Tensor
    m3: Tensor | None = None
    m4: Tensor | None = None

    @classmethod
    def measure(cls, sample: Sample, *, order: int = 2) -> Self:
        x = sample.values
        mean = channel_mean(x)
        deviation = centred(x, mean)
        square = deviation * deviation
        m2 = channel_sum(square)
        if order < 4:
            return cls(sample.rows, mean, m2)
        m3 = channel_sum(deviation.mul_(square))
        return cls(sample.rows, mean, m2, m3, channel_sum(square.mul_(square)))

    @classmethod
    def joined(cls, mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
        return {"order": order} if (order := max(_order(mine), _order(other))) > 2 else {}

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        if (self.m4 is None) != (other.m4 is None):
            other = type(other)(other.rows, other.mean, other.m2)
            self.m3 = self.m4 = None
        a, b = self.rows, other.rows
        share, weight = mix(a, b)
        gap = other.mean.to(self.mean.dtype) - self.mean
        if self.m3 is not None and self.m4 is not None and other.m3 is not None:
            self._merge_high(other, gap)
        self.m2 += other.m2
        self.m2 += gap.square() * weight
        self.mean += gap * share
        self.rows = a + b

    def _merge_high(self, other: Self, gap: Tensor) -> None:
        assert self.m3 is not None and self.m4 is not None
        assert other.m3 is not None and other.m4 is not None
        a, b = self.rows, other.rows
        n = max(a + b, 1)
        m3, m2 = other.m3.to(gap.dtype), other.m2.to(gap.dtype)
        self.m4 += (
            other.m4
            + gap**4 * (a * b * (a * a - a * b + b * b) / n**3)
            + 6 * gap**2 * (m2 * (a / n) ** 2 + self.m2 * (b / n) ** 2)
            + 4 * gap * (m3 * (a / n) - self.m3 * (b / n))
        )
        self.m3 += (
            m3 + gap**3 * (a * b * (a - b) / n**2) + 3 * gap * (m2 * (a / n) - self.m2 * (b / n))
        )

    def variance(self) -> Tensor:
        """Return the variance (n - 1 in the divisor), shape `(channels,)`; NaN below two rows."""
        return self.m2 / (self.rows - 1) if self.rows > 1 else torch.full_like(self.m2, torch.nan)

    def values(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "variance": self.variance()}

    def mean_square(self) -> Tensor:
        """Return the mean of the squares, shape `(channels,)`."""
        return self.m2 / max(self.rows, 1) + self.mean.square()


@dataclass
class Extremes(Statistic):
    """Smallest and largest value of every channel, each `(channels,)`."""

    rows: int
    low: Tensor
    high: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        x, axes = sample.values, (0,) if sample.values.ndim == 2 else (0, 2)
        if not x.numel():
            low = x.new_full((x.shape[1],), torch.inf)
            return cls(0, low, -low)
        return cls(sample.rows, x.amin(axes), x.amax(axes))

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        self.low = torch.minimum(self.low, other.low.to(self.low.dtype))
        self.high = torch.maximum(self.high, other.high.to(self.high.dtype))
        self.rows += other.rows


@dataclass
class Mean(Statistic):
    """Sum of the values of every channel, `(channels,)`, and the number of rows."""

    rows: int
    total: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.rows, channel_sum(sample.values))

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
class AbsoluteMean(Mean):
    """Sum of the absolute values of every channel, `(channels,)`."""

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        return cls(sample.rows, channel_sum(sample.values.abs()))


@dataclass
class NearZero(Statistic):
    """How many rows of every channel have an absolute value of at most `eps`, `(channels,)`."""

    rows: int
    count: Tensor
    eps: float

    @classmethod
    def measure(cls, sample: Sample, *, eps: float = 0.0) -> Self:
        x = sample.values
        near = x == 0 if eps == 0 else x.abs() <= eps
        return cls(sample.rows, channel_sum(near), eps)

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
