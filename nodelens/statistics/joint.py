"""Joint counts of every channel's values with classes, or with numbers, on grids that nest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import Self

from nodelens.errors import InvalidValueError, MergeError, ShapeError
from nodelens.statistics.base import Statistic
from nodelens.statistics.blocks import elements
from nodelens.statistics.comoments import as_numeric, class_labels, targets_of
from nodelens.statistics.reduce import per_channel, wide
from nodelens.statistics.sample import Sample

__all__ = ["Grid", "JointCounts"]

_FINEST = 20
"""Bits of the largest value below which nothing is told apart; float32 has 24, its sums fewer."""
_LOWEST, _SHIFT = -1000, 63


@dataclass(frozen=True)
class Grid:
    """Bins of width 2^exponent, counted from the one that holds the smallest value, `(columns,)`.

    Edges are multiples of the width, so the bins of a wider range are whole bins of a narrower one.
    """

    exponent: Tensor
    first: Tensor
    used: Tensor

    @classmethod
    def over(cls, low: Tensor, high: Tensor, bins: int) -> Grid:
        """Return the finest grid that covers each range with `bins` bins; a power of two."""
        some = low <= high
        low, high = low.where(some, 0 * some), high.where(some, 0 * some)
        span, size = high - low, torch.maximum(low.abs(), high.abs())
        exponent = _exponent(span) - (bins.bit_length() - 1)
        exponent = torch.maximum(exponent, _exponent(size) - _FINEST).clamp(min=_LOWEST)
        wide_enough = _index(high, exponent) - _index(low, exponent) < bins
        exponent = exponent + (~wide_enough)
        first = _index(low, exponent)
        return cls(exponent, first, _index(high, exponent) - first + 1)

    def places(self, values: Tensor) -> Tensor:
        """Return the bin of every value; columns on axis 1, as in the grid."""
        return _index(values, per_channel(self.exponent, values)) - per_channel(self.first, values)

    def moved(self, finer: Grid, bins: int) -> Tensor:
        """Return where each bin of a finer grid lies in this one, `(columns, bins)`."""
        number = finer.first[:, None] + torch.arange(bins, device=self.first.device)
        drop = (self.exponent - finer.exponent).clamp(0, _SHIFT)[:, None]
        return ((number >> drop) - self.first[:, None]).clamp(0, bins - 1)

    def same(self, other: Grid) -> bool:
        """Return whether no bin differs."""
        return torch.equal(self.exponent, other.exponent) and torch.equal(self.first, other.first)


def _exponent(size: Tensor) -> Tensor:
    """The smallest e with size < 2^e; very low for 0."""
    return torch.frexp(size).exponent.long().where(size > 0, torch.full_like(size.long(), _LOWEST))


def _index(values: Tensor, exponent: Tensor) -> Tensor:
    """The largest whole number of widths that is not above the value."""
    scale = ((1023 - exponent) << 52).view(torch.float64)
    return (values.double() * scale).floor().long()


@dataclass
class JointCounts(Statistic):
    """In how many rows a channel's value and a target are in each pair of bins.

    `counts` is `(channels, targets, categories, bins)`, integers. For class numbers there is one
    target, and categories are the classes; numbers get `target_bins` bins of their own. Bins are a
    power of two wide and as narrow as covering the range from `low` to `high` allows, so between
    half and all of `bins` are in use. When a range grows, bins join in pairs: what is counted does
    not depend on which rows came first. Differences below 2^-20 of a column's largest value are
    rounding, and not told apart.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    rows: int
    low: Tensor
    high: Tensor
    target_low: Tensor
    target_high: Tensor
    counts: Tensor
    categorical: bool

    @classmethod
    def measure(cls, sample: Sample, *, bins: int = 256, target_bins: int = 64) -> Self:
        if min(bins, target_bins) < 2 or bins & (bins - 1) or target_bins & (target_bins - 1):
            raise InvalidValueError(f"{bins} and {target_bins} bins, expected powers of two")
        raw, x = targets_of(sample), sample.values
        categorical = not raw.is_floating_point() and raw.ndim == 1
        low, high = (wide(end) for end in sample.extremes)
        if categorical:
            places, categories = _classes(sample)
            target_low = target_high = low.new_zeros(0)
        else:
            numbers, categories = as_numeric(raw).double(), target_bins
            target_low, target_high = Sample(numbers).extremes
            places = Grid.over(target_low, target_high, target_bins).places(numbers)
        shape = (x.shape[1], places.shape[1], categories, bins)
        counts = torch.zeros(shape, dtype=torch.int64, device=x.device)
        found = cls(sample.rows, low, high, target_low, target_high, counts, categorical)
        found._count(x, places)
        return found

    def _count(self, x: Tensor, places: Tensor) -> None:
        """Count rows `(rows, channels)` or maps; `places` are the categories of the first axis."""
        _, targets, categories, bins = self.counts.shape
        grid = Grid.over(self.low, self.high, bins)
        channel = torch.arange(x.shape[1], device=x.device) * (targets * categories)
        flat, once = self.counts.view(-1), self.counts.new_ones(())
        step = max(elements(x) // max(x[:1].numel(), 1), 1)
        for start in range(0, len(x), step):
            part = x[start : start + step]
            found = grid.places(part) + per_channel(channel * bins, part)
            for target, category in enumerate(places[start : start + step].unbind(1)):
                offset = (target * categories + category) * bins
                index = (found + offset.view(-1, *[1] * (part.ndim - 1))).flatten()
                flat.scatter_add_(0, index, once.expand_as(index))

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        theirs = other.padded(self.counts.shape[2])
        vars(self).update(vars(self.padded(theirs.counts.shape[2])))
        low, high = torch.minimum(self.low, theirs.low), torch.maximum(self.high, theirs.high)
        target_low = torch.minimum(self.target_low, theirs.target_low)
        target_high = torch.maximum(self.target_high, theirs.target_high)
        ends = (low, high, target_low, target_high)
        self.counts = self._regridded(*ends) + theirs._regridded(*ends)
        self.low, self.high, self.target_low, self.target_high = ends
        self.rows += theirs.rows

    def _regridded(
        self, low: Tensor, high: Tensor, target_low: Tensor, target_high: Tensor
    ) -> Tensor:
        """The counts on the grids of ranges that hold those of this part."""
        counts, bins = self.counts, self.counts.shape[3]
        mine, wider = Grid.over(self.low, self.high, bins), Grid.over(low, high, bins)
        if not wider.same(mine):
            places = wider.moved(mine, bins)[:, None, None].expand_as(counts)
            counts = torch.zeros_like(counts).scatter_add_(3, places, counts)
        if self.categorical:
            return counts
        size = counts.shape[2]
        mine = Grid.over(self.target_low, self.target_high, size)
        wider = Grid.over(target_low, target_high, size)
        if not wider.same(mine):
            places = wider.moved(mine, size)[None, :, :, None].expand_as(counts)
            counts = torch.zeros_like(counts).scatter_add_(2, places, counts)
        return counts

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, JointCounts)
        if self.categorical != other.categorical:
            raise MergeError("targets are class numbers in one batch and numeric in another")
        mine, theirs = self.counts.shape, other.counts.shape
        if mine[1] != theirs[1]:
            raise ShapeError(f"targets have {theirs[1]} dimensions in one batch, {mine[1]} before")
        if mine[3] != theirs[3] or (not self.categorical and mine[2] != theirs[2]):
            raise MergeError(f"joint counts of {tuple(theirs[2:])} bins, {tuple(mine[2:])} before")

    def padded(self, classes: int) -> Self:
        """Return the same statistic with room for `classes` classes."""
        more = classes - self.counts.shape[2]
        if not self.categorical or more <= 0:
            return self
        fields = {**vars(self), "counts": pad(self.counts, (0, 0, 0, more))}
        return type(self)(**fields)

    def used(self) -> Tensor:
        """Return how many bins a channel's range takes, `(channels,)`."""
        return Grid.over(self.low, self.high, self.counts.shape[3]).used

    def targets_used(self) -> Tensor:
        """Return how many bins a numeric target's range takes, `(targets,)`."""
        return Grid.over(self.target_low, self.target_high, self.counts.shape[2]).used


def _classes(sample: Sample) -> tuple[Tensor, int]:
    """Class numbers as one column, and how many classes there are."""
    labels = class_labels(sample)
    if labels.numel() and int(labels.min()) < 0:
        raise InvalidValueError(f"class numbers start at 0, got {int(labels.min())}")
    return labels[:, None], int(labels.max()) + 1 if labels.numel() else 1
