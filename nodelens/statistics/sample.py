"""What one layer shows in one batch, and what several statistics of it share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nodelens.statistics import kernels
from nodelens.statistics.blocks import Block, blocks
from nodelens.statistics.reduce import (
    centred,
    channel_extremes,
    channel_mean,
    channel_sum,
    gram,
    per_channel,
    wide,
)
from nodelens.statistics.window import Window

__all__ = ["Sample"]

_NOTHING = kernels.Asked()


@dataclass(frozen=True)
class Sample:
    """What one layer shows in one batch, channels always on axis 1.

    `values` is `(rows, channels)`, or `(batch, channels, positions)` for maps; `gradient` has the
    same shape. `targets` is `(values.shape[0],)` of class numbers or `(values.shape[0], targets)`
    of numbers. `inputs` is the layer's own input when a statistic needs both ends; `beside` what
    another layer, `beside_name`, shows in the same rows.

    What more than one statistic needs is a property here, so that it is worked out once whatever
    is asked for. Statistics must not write to what they get.
    """

    values: Tensor
    gradient: Tensor | None = None
    targets: Tensor | None = None
    inputs: Tensor | None = None
    window: Window | None = None
    loss_terms: int = 1
    beside: Tensor | None = None
    beside_name: str = ""

    @property
    def rows(self) -> int:
        """Return how many rows there are: samples, or tokens, or samples times positions."""
        return self.values.numel() // max(self.values.shape[1], 1)

    @property
    def flat(self) -> Sample:
        """Return the sample with the positions of a map on one axis: itself where they are."""
        # Itself is not kept: a sample that holds itself would be freed by the collector alone.
        return self if self.values.ndim <= 3 else self._flattened

    @cached_property
    def _flattened(self) -> Sample:
        return replace(self, values=self.values.flatten(2))

    def survey(self, asked: kernels.Asked = _NOTHING) -> kernels.Survey | None:
        """Return what was asked for, and before, from one visit of the values, where compiled."""
        known: kernels.Survey | None = self.__dict__.get("_known")
        if known is not None and (asked := known.asked.joined(asked)) == known.asked:
            return known
        found = kernels.survey(self.values, asked)
        self.__dict__["_known"] = found
        return found

    @cached_property
    def total(self) -> Tensor:
        """Return the sum over rows, `(channels,)`: NaN or infinite where a value is."""
        found = self.survey()
        return channel_sum(self.values) if found is None else found.total

    @cached_property
    def mean(self) -> Tensor:
        """Return the mean over rows, `(channels,)`; exact for a constant channel."""
        found = self.survey()
        return channel_mean(self.values, self.total) if found is None else found.centre

    @cached_property
    def deviation(self) -> Tensor:
        """Return the values minus their channel's mean: what keeps float32 sums exact."""
        deviation = centred(self.values, self.mean)
        return deviation.sub_(per_channel(self.residual.to(deviation.dtype), deviation))

    @cached_property
    def residual(self) -> Tensor:
        """Return the mean deviation in float64, `(channels,)`: what rounding took from the mean.

        Far from zero that is more than small variances and correlations survive.
        """
        if (found := self.survey()) is not None:
            return found.residual
        left = torch.zeros_like(wide(self.mean))
        for block in self.blocks():
            left += channel_sum(block.deviation)
        return left / max(self.rows, 1)

    @cached_property
    def refined_mean(self) -> Tensor:
        """Return the mean in float64, with what rounding took from it, `(channels,)`."""
        found = self.survey()
        return wide(self.mean) + self.residual if found is None else found.mean

    @cached_property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value, each `(channels,)`; inf, -inf without rows."""
        if (found := self.survey()) is not None:
            return found.low, found.high
        if not self.values.numel():
            nothing = torch.full_like(self.total, torch.inf)
            return nothing, -nothing
        return channel_extremes(self.values)

    @cached_property
    def squares(self) -> Tensor:
        """Return the sums of squared deviations, `(channels,)`."""
        found = self.survey(kernels.Asked(order=2))
        return channel_sum(self.deviation.square()) if found is None else found.m2

    @cached_property
    def products(self) -> Tensor:
        """Return the sums of products of deviations of every two channels."""
        return gram(self.deviation, self.deviation)

    def blocks(self) -> Iterator[Block]:
        """Yield the values block by block, for sums that need nothing but a block and the mean."""
        return blocks(self.values, self.mean)
