"""Second moments between the channels of two layers, measured in the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import Self

from nodelens.errors import MergeError, ShapeError
from nodelens.statistics.base import Statistic
from nodelens.statistics.comoments import add_products, tiles
from nodelens.statistics.reduce import gram, mix
from nodelens.statistics.sample import Sample

__all__ = ["CrossLayerMoments"]


@dataclass
class CrossLayerMoments(Statistic):
    """Second moments of every channel with every channel of another layer, `other`.

    `cross` is the sum of products of deviations `(channels, others)`; `mean` and `m2` `(channels,)`
    are the channels' own, `other_mean` and `other_m2` `(others,)` those of the other layer. One
    matrix product a batch, merged as co-moments are. A block, measured with `start` and `stop`,
    is of those channels alone, against all of the other layer.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"beside"})
    pairwise: ClassVar[bool] = True

    rows: int
    mean: Tensor
    m2: Tensor
    other_mean: Tensor
    other_m2: Tensor
    cross: Tensor
    other: str = ""
    start: int = 0

    @classmethod
    def measure(cls, sample: Sample, *, start: int = 0, stop: int | None = None) -> Self:
        if sample.beside is None:
            raise ShapeError("a statistic of two layers needs what the other layer shows")
        beside, mine = Sample(sample.beside), slice(start, stop)
        deviation = sample.deviation[:, mine]
        return cls(
            sample.rows,
            sample.refined_mean[mine],
            sample.squares[mine],
            beside.refined_mean,
            beside.squares,
            gram(deviation, beside.deviation),
            sample.beside_name,
            start,
        )

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        share, weight = mix(self.rows, other.rows)
        gap = other.mean.to(self.mean.dtype) - self.mean
        other_gap = other.other_mean.to(self.mean.dtype) - self.other_mean
        add_products(self.cross, other.cross, gap * weight, other_gap)
        self.m2 += other.m2 + gap.square() * weight
        self.other_m2 += other.other_m2 + other_gap.square() * weight
        self.mean += gap * share
        self.other_mean += other_gap * share
        self.rows += other.rows

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, CrossLayerMoments)
        mine = (self.start, tuple(self.cross.shape), self.other)
        theirs = (other.start, tuple(other.cross.shape), other.other)
        if mine != theirs:
            raise MergeError(
                f"moments of {theirs[1]} from channel {theirs[0]} with layer {theirs[2]!r} after "
                f"{mine[1]} from {mine[0]} with {mine[2]!r}"
            )

    def correlations(self) -> Iterator[Tensor]:
        """Yield Pearson correlations of a few channels at a time, `(some, others)`.

        They are 0 with a constant channel.
        """
        mine, theirs = (m2.clamp(min=0).rsqrt() for m2 in (self.m2, self.other_m2))
        mine, theirs = (scale.masked_fill(scale.isinf(), 0) for scale in (mine, theirs))
        for rows in tiles(self.cross):
            yield (self.cross[rows] * mine[rows, None]).mul_(theirs).clamp_(-1, 1)
