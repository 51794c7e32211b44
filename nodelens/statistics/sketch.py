"""Distributions of every channel in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.errors import InvalidValueError, MergeError
from nodelens.statistics import kernels
from nodelens.statistics.base import Additive, Statistic
from nodelens.statistics.blocks import Block, elements, room
from nodelens.statistics.kernels import Asked, Survey
from nodelens.statistics.reduce import per_channel
from nodelens.statistics.sample import Sample

__all__ = ["Histogram", "QuantileSketch"]

_MANTISSA_BITS = 6
_SHIFT = 23 - _MANTISSA_BITS
_PER_OCTAVE = 1 << _MANTISSA_BITS
_EMPTY = -1
_FEW = 4
"""Rows a counter up to which bin numbers take less memory than counters."""
_WAITING = 2
"""Rows a counter from which waiting bin numbers are counted: then they take as much memory."""
_MOST = (1 << 31) - 1


@dataclass
class QuantileSketch(Additive):
    """Counts of absolute values in log-spaced bins, for quantiles within 1% of the true value.

    A bin is an exponent and the first six mantissa bits of a float32, read off the bits
    themselves: 64 bins an octave, so the middle of a bin is at most 0.8% off. `counts` is
    `(channels, bins)` and `top` the number of each channel's highest bin, at the end of an octave.
    Whatever lies more than `octaves - 1` below a channel's largest value shares its lowest bin, as
    zeros do, and counts as 0 (Masson, Rim and Lee 2019, with the lowest bins collapsed).

    Few rows keep each value's bin in `bins`, two bytes a value, far less to move than counters that
    are mostly zero. What others bring waits in `waiting` until there are many: every channel's
    counters are then fetched into the cache once for all of them.
    """

    rows: int
    top: Tensor
    counts: Tensor
    bins: Tensor | None = None
    waiting: _Waiting | None = None

    @classmethod
    def asks(cls, *, octaves: int = 16) -> Asked:
        return Asked(binned=True)

    @classmethod
    def surveyed(cls, sample: Sample, found: Survey, *, octaves: int = 16) -> Self:
        sketch = cls._above(found.top, sample, octaves)
        if found.bins is not None and sketch._keeps(sample):
            sketch.bins = found.bins
        else:
            sketch.counts = sketch.counts.clone()
            values = sample.values if found.bins is None else found.bins
            kernels.count(values, sketch.counts, sketch._floor())
        return sketch

    @classmethod
    def empty(cls, sample: Sample, *, octaves: int = 16) -> Self:
        low, high = sample.extremes
        sketch = cls._above(_bins(torch.maximum(high.abs(), low.abs())).long(), sample, octaves)
        if not sample.rows:
            sketch.top.fill_(_EMPTY)
        if sketch._keeps(sample):
            sketch.bins = torch.empty_like(sample.values, dtype=torch.int16)
        else:
            sketch.counts = sketch.counts.clone()
        return sketch

    @classmethod
    def _above(cls, highest: Tensor, sample: Sample, octaves: int) -> Self:
        """A sketch that holds nothing yet, with room up to every channel's highest bin."""
        size = octaves * _PER_OCTAVE
        none = torch.zeros((), dtype=torch.int32, device=highest.device)
        top = highest | (_PER_OCTAVE - 1)
        return cls(sample.rows, top, none.expand(len(top), size))

    def _keeps(self, sample: Sample) -> bool:
        """Whether bin numbers of so few rows are kept, not counted."""
        return sample.values.ndim == 2 and sample.rows <= _FEW * self.counts.shape[1]

    def absorb(self, block: Block, sample: Sample) -> None:
        if self.bins is None:
            self._count(block)
        else:
            part = self.bins[block.start : block.stop]
            part.copy_(_bins(block.size, out=block.spare(torch.int32)))

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        if self.counts.shape != other.counts.shape:
            raise MergeError(
                f"sketches of {tuple(other.counts.shape)} and {tuple(self.counts.shape)} counters"
            )
        self.rows += other.rows
        if self.rows > _MOST:
            self.counts = self.counts.long()
        if other.bins is None:
            theirs = other.state()
            self._settle(theirs["top"])
            self.counts += theirs["counts"]
            _move_down(self.counts, theirs["counts"], self.top - theirs["top"])
        else:
            self._wait(other.bins, other.top)

    def _wait(self, bins: Tensor, top: Tensor) -> None:
        """Have bin numbers counted when there are more of them."""
        if self.waiting is None:
            self.waiting = _Waiting.of(_WAITING * self.counts.shape[1], bins, top)
        if not self.waiting.take(bins, top):
            self._settle(top)
            self._count_all(bins)

    def _settle(self, top: Tensor | None = None) -> None:
        """Count what waits; the channels' highest bins are then `top` at least."""
        tops = [self.top, *([] if top is None else [top])]
        parts = [] if self.bins is None else [self.bins]
        if self.waiting is not None:
            tops.append(self.waiting.top)
            parts.append(self.waiting.bins[: self.waiting.rows])
            self.waiting.rows = 0
        self._raise(tops[0] if len(tops) == 1 else torch.stack(tops).amax(0))
        for bins in parts:
            self._count_all(bins)
        self.bins = None

    def _raise(self, top: Tensor) -> None:
        """Have counters of its own up to the bins `top`."""
        if not self.counts.stride(0):
            self.counts = self.counts.clone()
        if self.top is not top:
            _move_down(self.counts, self.counts, top - self.top)
            self.top = top

    def state(self) -> dict[str, Tensor]:
        self._settle()
        return {"top": self.top, "counts": self.counts}

    def plain(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def _count_all(self, bins: Tensor) -> None:
        """Count bin numbers of rows, `(rows, channels)`."""
        floor = self._floor()[:, None]
        if kernels.count(bins, self.counts, floor):
            return
        once = self.counts.new_ones(())
        for part in bins.split(max(elements(bins) // max(bins.shape[1], 1), 1)):
            # Channel by channel, so that the counters at work stay in the cache.
            places = room("places", part.mT, torch.int64).copy_(part.mT)
            places.sub_(floor).clamp_(min=0)
            self.counts.scatter_add_(1, places, once.expand_as(places))

    def _count(self, block: Block) -> None:
        """Count the values of maps, in whose memory their places are worked out."""
        channels, size = self.counts.shape
        bins = _bins(block.size, out=block.spare(torch.int32))
        offset = torch.arange(channels, device=bins.device, dtype=torch.int32) * size
        floor = self._floor().int()
        bins.sub_(per_channel(floor, bins)).clamp_(min=0).add_(per_channel(offset, bins))
        counts = torch.bincount(bins.view(-1), minlength=channels * size)
        self.counts += counts.view(channels, size)

    def _floor(self) -> Tensor:
        """The number of every channel's lowest bin, `(channels,)`."""
        return self.top - (self.counts.shape[1] - 1)

    def quantile(self, q: float) -> Tensor:
        """Return the q-quantile of the absolute values, shape `(channels,)`, in activation units.

        At rank `q * (rows - 1)` of the sorted rows, to 1%; in between two, as NumPy does, their
        weighted mean.
        """
        if not 0 <= q <= 1:
            raise InvalidValueError(f"q is {q}, expected a number from 0 to 1")
        rank = q * max(self.rows - 1, 0)
        below = self._ranked(int(rank) + 1)
        above = self._ranked(min(int(rank) + 2, max(self.rows, 1)))
        return below + (above - below) * (rank - int(rank))

    def _ranked(self, rank: int) -> Tensor:
        """The middle of the bin that holds the value of that rank, counted from 1."""
        self._settle()
        counts, size = self.counts, self.counts.shape[1]
        inside = (counts.cumsum(1) < rank).sum(1).clamp_(max=size - 1)
        number = (self.top - (size - 1) + inside).clamp_(min=0)
        low = _bin_edge(number)
        middle = (low + _bin_edge(number + 1)) / 2
        return torch.where((inside == 0) | (number == 0), torch.zeros_like(middle), middle)


@dataclass
class _Waiting:
    """Bin numbers that are not counted yet: the first `rows` of `bins`, `top` their highest."""

    bins: Tensor
    top: Tensor
    rows: int = 0

    @classmethod
    def of(cls, rows: int, like: Tensor, top: Tensor) -> Self:
        """Return room for `rows` rows."""
        return cls(like.new_empty(rows, like.shape[1]), top)

    def take(self, bins: Tensor, top: Tensor) -> bool:
        """Take some more in, False where there is no room for them."""
        end = self.rows + len(bins)
        if end > len(self.bins):
            return False
        self.bins[self.rows : end] = bins
        self.top = top if not self.rows else torch.maximum(self.top, top)
        self.rows = end
        return True


@dataclass
class Histogram(Statistic):
    """Counts of every channel's values in equal bins from `low` to `high`.

    `counts` is `(channels, bins + 2)`: the first and last hold what lies outside.
    """

    rows: int
    counts: Tensor
    low: float
    high: float

    @classmethod
    def measure(cls, sample: Sample, *, low: float, high: float, bins: int = 64) -> Self:
        if not low < high or bins < 1:
            raise InvalidValueError(f"a histogram from {low} to {high} in {bins} bins is empty")
        x, channels = sample.values, sample.values.shape[1]
        number = ((x - low) * (bins / (high - low))).floor_().clamp_(-1, bins).long() + 1
        offset = torch.arange(channels, device=x.device) * (bins + 2)
        number += offset if x.ndim == 2 else offset[:, None]
        counts = torch.bincount(number.flatten(), minlength=channels * (bins + 2))
        return cls(sample.rows, counts.view(channels, bins + 2), low, high)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        if (self.low, self.high, self.counts.shape) != (other.low, other.high, other.counts.shape):
            raise MergeError("histograms with different bins")
        self.counts += other.counts
        self.rows += other.rows

    def edges(self) -> Tensor:
        """Return the bin edges, shape `(bins + 1,)`, in activation units."""
        return torch.linspace(self.low, self.high, self.counts.shape[1] - 1, dtype=torch.float64)


def _bin_edge(number: Tensor) -> Tensor:
    bits = (number << _SHIFT).to(torch.int32)
    return bits.view(torch.float32).double()


def _bins(size: Tensor, out: Tensor | None = None) -> Tensor:
    """The bin number of every absolute value, int32, of the shape of `size`."""
    bits = size.to(torch.float32).contiguous().view(torch.int32)
    return torch.bitwise_right_shift(bits, _SHIFT, out=out)


def _move_down(counts: Tensor, part: Tensor, drop: Tensor) -> None:
    """Move what `part` holds in `counts` down by `drop` bins a channel; the lowest bin collects."""
    # Few channels set a new record in a batch, so only their rows are touched.
    moved = drop.nonzero().flatten()
    if not len(moved):
        return
    before = part[moved]
    index = (torch.arange(counts.shape[1], device=counts.device) - drop[moved, None]).clamp_(min=0)
    after = torch.zeros_like(before).scatter_add_(1, index, before)
    counts[moved] += after - before
