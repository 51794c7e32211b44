"""Second moments of every channel with a few drawn by seed: what fits where C^2 does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.errors import InvalidValueError, MergeError
from nodelens.statistics.base import Statistic
from nodelens.statistics.comoments import add_products, squares_of
from nodelens.statistics.reduce import gram, mix
from nodelens.statistics.sample import Sample

__all__ = ["PartnerMoments"]


@dataclass
class PartnerMoments(Statistic):
    """Rows, mean `(channels,)` and sums of products of deviations `m2` `(partners, channels)`.

    The rows of `m2` are those of `count` channels, the same in every batch and process: the seed
    and the number of channels alone decide which. `squares` `(channels,)` is the diagonal of the
    matrix of all channels.
    """

    rows: int
    mean: Tensor
    m2: Tensor
    squares: Tensor
    seed: int = 0

    @classmethod
    def measure(cls, sample: Sample, *, count: int = 2, seed: int = 0) -> Self:
        deviation = sample.deviation
        chosen = _drawn(deviation.shape[1], count, seed).to(deviation.device)
        products = gram(deviation[:, chosen], deviation)
        return cls(sample.rows, sample.refined_mean, products, squares_of(deviation), seed)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        share, weight = mix(self.rows, other.rows)
        gap = other.mean.to(self.mean.dtype) - self.mean
        add_products(self.m2, other.m2, gap[self.partners()] * weight, gap)
        self.squares.add_(other.squares).addcmul_(gap, gap, value=weight)
        self.mean += gap * share
        self.rows += other.rows

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, PartnerMoments)
        if (self.seed, self.m2.shape) != (other.seed, other.m2.shape):
            raise MergeError(
                f"{tuple(other.m2.shape)} products of partners drawn with seed {other.seed} after "
                f"{tuple(self.m2.shape)} with seed {self.seed}"
            )

    def partners(self) -> Tensor:
        """Return the numbers of the channels drawn, `(partners,)`, ascending."""
        return _drawn(len(self.mean), len(self.m2), self.seed).to(self.mean.device)


def _drawn(channels: int, count: int, seed: int) -> Tensor:
    if count < 1:
        raise InvalidValueError(f"{count} partners, expected 1 or more")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(channels, generator=generator, device="cpu")
    return order[:count].sort().values
