"""Second moments between channels, and between channels and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import Self

from nodelens.errors import MergeError, MissingTargetsError, ShapeError
from nodelens.statistics import kernels
from nodelens.statistics.base import Statistic
from nodelens.statistics.blocks import elements
from nodelens.statistics.kernels import Asked
from nodelens.statistics.reduce import centred, gram, mix, wide, wide_gram
from nodelens.statistics.sample import Sample

__all__ = [
    "TILE_SHARE",
    "ClassMoments",
    "CoMoments",
    "CrossMoments",
    "GroupCoMoments",
    "LabelledCoMoments",
    "add_products",
    "tiles",
]

_DIAGONAL = 256
TILE_SHARE = 4
"""Tiles of a matrix to a block of rows: formulas on pairs have many more temporaries."""


@dataclass
class CoMoments(Statistic):
    """Rows, mean `(channels,)` and the sum of products of deviations `m2` `(channels, channels)`.

    One matrix product a batch; merged with Chan, Golub and LeVeque (1979). A block, measured with
    `start` and `stop`, keeps those rows of `m2` alone and, in `squares` `(channels,)`, the diagonal
    of the whole: what a wide layer's matrix takes can so be spread over several passes. `precise`
    multiplies in float64, for formulas on the inverse of the matrix; it serves no other reader, or
    a lens would give other digits in company.
    """

    pairwise: ClassVar[bool] = True
    """Whether a block of channels can be measured on its own, with options `start` and `stop`."""

    rows: int
    mean: Tensor
    m2: Tensor
    squares: Tensor | None = None
    start: int = 0

    @classmethod
    def measure(
        cls, sample: Sample, *, start: int = 0, stop: int | None = None, precise: bool = False
    ) -> Self:
        channels, deviation = sample.values.shape[1], sample.deviation
        stop = channels if stop is None else stop
        product = wide_gram if precise else gram
        if (start, stop) == (0, channels):
            whole = product(deviation, deviation) if precise else sample.products
            return cls(sample.rows, sample.refined_mean, whole)
        if not 0 <= start < stop <= channels:
            raise ShapeError(f"a block from {start} to {stop}, of {channels} channels")
        block = product(deviation[:, start:stop], deviation)
        return cls(sample.rows, sample.refined_mean, block, squares_of(deviation, product), start)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        share, weight = mix(self.rows, other.rows)
        gap = other.mean.to(self.mean.dtype) - self.mean
        mine = gap[self.start : self.start + len(self.m2)]
        add_products(self.m2, other.m2, mine * weight, gap)
        if self.squares is not None and other.squares is not None:
            self.squares.add_(other.squares).addcmul_(gap, gap, value=weight)
        self.mean += gap * share
        self.rows += other.rows

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, CoMoments)
        if (self.start, self.m2.shape) != (other.start, other.m2.shape):
            raise MergeError(
                f"co-moments of {tuple(other.m2.shape)} from channel {other.start} after "
                f"{tuple(self.m2.shape)} from {self.start}"
            )

    def diagonal(self) -> Tensor:
        """Return the sum of squared deviations of every channel, `(channels,)`."""
        return self.m2.diagonal() if self.squares is None else self.squares

    def covariance(self) -> Tensor:
        """Return the covariance (n - 1 in the divisor), `(channels, channels)` or a block's."""
        return self.m2 / (self.rows - 1)

    def parts(self) -> Iterator[Self]:
        """Yield a few rows of `m2` at a time as blocks, sharing their memory.

        To work on: what a formula needs for one block is then small, however many channels.
        """
        diagonal = self.diagonal()
        for rows in tiles(self.m2):
            yield type(self)(self.rows, self.mean, self.m2[rows], diagonal, self.start + rows.start)


@dataclass
class LabelledCoMoments(CoMoments):
    """Co-moments of the rows that have a target: the same rows as targets' own statistics see."""

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})


@dataclass
class GroupCoMoments(Statistic):
    """Rows, mean `(channels,)` and sums of products of deviations within groups of channels alone.

    `m2` is `(groups, channels of a group, channels of a group)`, groups one after the other: what
    the units of a grouped convolution see of its patches. Merged as `CoMoments`.
    """

    rows: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def measure(cls, sample: Sample, *, groups: int) -> Self:
        grouped = sample.deviation.unflatten(1, (groups, -1))
        axes = "rgi,rgj->gij" if grouped.ndim == 3 else "rgip,rgjp->gij"
        return cls(sample.rows, sample.refined_mean, torch.einsum(axes, grouped, grouped))

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        share, weight = mix(self.rows, other.rows)
        gap = other.mean.to(self.mean.dtype) - self.mean
        grouped = gap.unflatten(0, (len(self.m2), -1))
        self.m2 += other.m2
        self.m2 += grouped[:, :, None] * grouped[:, None, :] * weight
        self.mean += gap * share
        self.rows += other.rows


@dataclass
class CrossMoments(Statistic):
    """Second moments of every channel with every target dimension.

    `cross` is the sum of products of deviations `(channels, targets)`, `m2` the channels' own sums
    of squares `(channels,)`, `target_m2` the targets' `(targets, targets)`. Class numbers count as
    one-hot; a class that appears later only adds zeros to what came before.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    rows: int
    mean: Tensor
    m2: Tensor
    target_mean: Tensor
    target_m2: Tensor
    cross: Tensor
    categorical: bool = False

    @classmethod
    def asks(cls) -> Asked:
        return Asked(order=2)

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        raw = targets_of(sample)
        categorical = not raw.is_floating_point() and raw.ndim == 1
        x, t = sample.values, as_numeric(raw).to(torch.float64)
        positions = 1 if x.ndim == 2 else x.shape[2]
        target_mean = t.sum(0) / max(len(t), 1)
        deviation, gap = sample.deviation, t - target_mean
        per_sample = deviation if x.ndim == 2 else deviation.sum(2)
        # Transposed after: four times as fast as a product whose rows are few numbers long.
        cross = (gap.to(x.dtype).mT @ per_sample).mT.contiguous()
        target_m2 = gap.mT @ gap * positions
        return cls(
            sample.rows,
            sample.refined_mean,
            sample.squares,
            target_mean,
            target_m2,
            cross,
            categorical,
        )

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        if self.categorical != other.categorical:
            raise MergeError("targets are class numbers in one batch and numeric in another")
        size = max(len(self.target_mean), len(other.target_mean))
        theirs = other.padded(size)
        vars(self).update(vars(self.padded(size)))
        share, weight = mix(self.rows, theirs.rows)
        gap = theirs.mean.to(self.mean.dtype) - self.mean
        target_gap = theirs.target_mean.to(self.mean.dtype) - self.target_mean
        self.m2 += theirs.m2 + gap.square() * weight
        self.cross += theirs.cross + torch.outer(gap, target_gap) * weight
        self.target_m2 += theirs.target_m2 + torch.outer(target_gap, target_gap) * weight
        self.mean += gap * share
        self.target_mean += target_gap * share
        self.rows += theirs.rows

    def padded(self, targets: int) -> Self:
        """Return the same statistic with room for `targets` dimensions."""
        more = targets - len(self.target_mean)
        if not more:
            return self
        if not self.categorical:
            raise ShapeError(
                f"targets have {targets} dimensions in one batch, "
                f"{len(self.target_mean)} in another"
            )
        return type(self)(
            self.rows,
            self.mean,
            self.m2,
            pad(self.target_mean, (0, more)),
            pad(self.target_m2, (0, more, 0, more)),
            pad(self.cross, (0, more)),
            self.categorical,
        )


@dataclass
class ClassMoments(Statistic):
    """Rows, mean and sum of squared deviations of every channel within every class.

    `counts` is `(classes,)`, `mean` and `m2` are `(classes, channels)`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    rows: int
    counts: Tensor
    mean: Tensor
    m2: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        labels, x = class_labels(sample), sample.values
        positions = 1 if x.ndim == 2 else x.shape[2]
        member = indicators(labels).to(x.dtype)
        counts = torch.bincount(labels, minlength=member.shape[1]) * positions
        # Centred first: far from zero, float32 means of classes would not show how they differ.
        deviation = sample.deviation
        sums = member.mT @ (deviation if x.ndim == 2 else deviation.sum(2))
        offset = sums / counts.clamp(min=1)[:, None].to(x.dtype)
        deviation = centred(deviation, offset[labels])
        square = deviation.square_() if x.ndim == 2 else deviation.square_().sum(2)
        mean = (sample.refined_mean + wide(offset)) * (counts > 0)[:, None]
        return cls(sample.rows, counts, mean, member.mT @ square)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        size = max(len(self.counts), len(other.counts))
        theirs = other.padded(size)
        vars(self).update(vars(self.padded(size)))
        total = self.counts + theirs.counts
        share = (theirs.counts.to(self.mean.dtype) / total.clamp(min=1))[:, None]
        gap = theirs.mean.to(self.mean.dtype) - self.mean
        self.m2 += theirs.m2 + gap.square() * share * self.counts[:, None]
        self.mean += gap * share
        self.counts = total
        self.rows += theirs.rows

    def padded(self, classes: int) -> Self:
        """Return the same statistic with room for `classes` classes."""
        more = classes - len(self.counts)
        if not more:
            return self
        below = (0, 0, 0, more)
        return type(self)(
            self.rows, pad(self.counts, (0, more)), pad(self.mean, below), pad(self.m2, below)
        )

    def values(self) -> dict[str, Tensor]:
        return {f"mean[{k}]": row for k, row in enumerate(self.mean)}


def add_products(total: Tensor, products: Tensor, left: Tensor, right: Tensor) -> None:
    """Add products `(channels, others)`, and the outer product of two gaps, to `total` in place."""
    if kernels.add_products(total, products, left, right):
        return
    for rows in tiles(total):
        # In float32 a sum with the whole of the products would be preceded by a wide copy of it.
        total[rows].add_(products[rows]).addr_(left[rows], right)


def tiles(matrix: Tensor) -> Iterator[slice]:
    """Yield runs of rows that are small enough to be worked on together."""
    step = max(elements(matrix) // (TILE_SHARE * max(matrix.shape[1], 1)), 1)
    for first in range(0, len(matrix), step):
        yield slice(first, min(first + step, len(matrix)))


def squares_of(deviation: Tensor, product: Callable[[Tensor, Tensor], Tensor] = gram) -> Tensor:
    """Return the diagonal of the matrix of products, `(channels,)`.

    From matrix products as well, so that it is rounded as the block is: the correlation of two
    copies would be off by more than what tells copies from others.
    """
    parts = deviation.split(_DIAGONAL, dim=1)
    return torch.cat([product(part, part).diagonal().clone() for part in parts])


def targets_of(sample: Sample) -> Tensor:
    """Return the sample's targets, first axis as long as the values'."""
    if sample.targets is None:
        raise MissingTargetsError("targets are needed: give batches as (inputs, targets)")
    return sample.targets


def class_labels(sample: Sample) -> Tensor:
    """Return the targets as class numbers, `(values.shape[0],)`."""
    labels = targets_of(sample)
    if labels.is_floating_point() or labels.ndim != 1:
        raise MissingTargetsError(
            f"class numbers are needed (integers, one a row), got {labels.dtype} "
            f"of shape {tuple(labels.shape)}"
        )
    return labels.long()


def as_numeric(targets: Tensor) -> Tensor:
    """Return targets as `(rows, targets)` numbers, class numbers as one-hot rows."""
    if targets.is_floating_point():
        return targets[:, None] if targets.ndim == 1 else targets.flatten(1)
    if targets.ndim != 1:
        return targets.flatten(1).double()
    return indicators(targets)


def indicators(labels: Tensor) -> Tensor:
    """Return class numbers as one-hot rows, `(rows, highest class + 1)`; one class without rows."""
    if labels.numel() and int(labels.min()) < 0:
        raise MissingTargetsError(f"class numbers start at 0, got {int(labels.min())}")
    classes = torch.arange(int(labels.max()) + 1 if labels.numel() else 1, device=labels.device)
    # one_hot would load torch's compiler, a second and a half, where costs are worked out.
    return (labels.long()[:, None] == classes).long()
