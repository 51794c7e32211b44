"""Moments of activation times gradient, and of the products that a weight's update is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.errors import MissingLossError
from nodelens.statistics import kernels
from nodelens.statistics.base import Statistic
from nodelens.statistics.reduce import centred, channel_mean, channel_sum, gram, wide
from nodelens.statistics.sample import Sample
from nodelens.statistics.window import Window

__all__ = ["ActivationGradient", "WeightFisher", "WeightUpdates"]

_FISHER_ELEMENTS = 1 << 22
"""Numbers that patches and weight gradients of some samples take at once."""


@dataclass
class ActivationGradient(Statistic):
    """Sums over rows of what activation u and gradient g make together, each `(channels,)`.

    `product` u g, `absolute` abs(u g), `square` (u g)^2, `value_square` u^2, `gradient_square` g^2.
    With `per="sample"` u g is summed over positions first, so a row is a sample. With
    `reduction="mean"` the gradient is divided by the number of loss terms of its batch. With
    `groups` channels are taken in as many equal runs, such as attention heads: u and g are then
    vectors, u g their inner product, u^2 and g^2 their squared lengths, each `(groups,)`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    rows: int
    product: Tensor
    absolute: Tensor
    square: Tensor
    value_square: Tensor
    gradient_square: Tensor

    @classmethod
    def measure(
        cls, sample: Sample, *, per: str = "row", reduction: str = "sum", groups: int = 0
    ) -> Self:
        u, g = sample.values, gradient_of(sample)
        terms = max(sample.loss_terms, 1) if reduction == "mean" else 1
        if not groups and (sums := kernels.meet(u, g, whole=per == "sample")) is not None:
            rows = len(u) if per == "sample" else sample.rows
            return cls(rows, *sums).divided(terms)
        squares = [_in_groups(channel_sum(v * v), 0, groups) for v in (u, g)]
        product = _in_groups(u * g, 1, groups)
        rows = sample.rows
        if per == "sample" and product.ndim == 3:
            product, rows = product.sum(2), len(product)
        total = channel_sum(product)
        square = channel_sum(product * product)
        return cls(rows, total, channel_sum(product.abs_()), square, *squares).divided(terms)

    def divided(self, terms: int) -> Self:
        """Return the sums of gradients divided by a number of loss terms."""
        if terms == 1:
            return self
        once, twice = 1 / terms, 1 / terms**2
        product, absolute, square = self.product * once, self.absolute * once, self.square * twice
        own, slope = self.value_square, self.gradient_square * twice
        return type(self)(self.rows, product, absolute, square, own, slope)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        for name, theirs in other.state().items():
            getattr(self, name).add_(theirs)
        self.rows += other.rows

    def mean(self, name: str) -> Tensor:
        """Return the mean over rows of the sum called `name`, shape `(channels,)`."""
        total: Tensor = getattr(self, name)
        return total / max(self.rows, 1)


@dataclass
class WeightUpdates(Statistic):
    """Sums over rows of gradient times input and output times input, each `(channels, width)`."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "input"})

    rows: int
    gradient: Tensor
    hebbian: Tensor
    output: Tensor
    output_square: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        y, g, x = sample.values, gradient_of(sample), sample.inputs
        assert x is not None
        sums = channel_sum(y), channel_sum(y * y)
        return cls(sample.rows, _products(g, x, sample), _products(y, x, sample), *sums)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        for name, theirs in other.state().items():
            getattr(self, name).add_(theirs)
        self.rows += other.rows


@dataclass
class WeightFisher(Statistic):
    """Sum over samples of the squared gradients of a weight row's entries, `(channels,)`.

    A sample's gradient of a convolution's weight is a sum over positions, which is squared as a
    whole; that of a linear layer has one term a row, and of tokens each is a row of its own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "input"})

    rows: int
    square: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        g, x = gradient_of(sample), sample.inputs
        assert x is not None
        if sample.window is None:
            # The gradient of a row is an outer product: its square has the product of lengths.
            return cls(len(g), channel_sum(g * g * (x * x).sum(1, keepdim=True)))
        total = wide(g.new_zeros(g.shape[1]))
        for part in _shares(g, x, sample.window):
            patches = sample.window.patches(x[part])
            total += _squared_products(g[part], patches, sample.window.groups)
        return cls(len(g), total)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        self.square += other.square
        self.rows += other.rows


def gradient_of(sample: Sample) -> Tensor:
    """Return the loss gradient at the values, of the same shape."""
    if sample.gradient is None:
        raise MissingLossError("a loss gradient is needed")
    return sample.gradient


def _in_groups(x: Tensor, axis: int, groups: int) -> Tensor:
    """The sums over each of `groups` equal runs of channels; `x` itself for 0."""
    return x if not groups else x.unflatten(axis, (groups, -1)).sum(axis + 1)


def _shares(g: Tensor, x: Tensor, window: Window) -> Iterator[slice]:
    """Samples few enough for their patches and weight gradients to be held at once."""
    taps = x.shape[1] * window.taps
    each = (2 * taps + g.shape[1]) * g.shape[2] + 2 * g.shape[1] * (taps // window.groups)
    step = max(_FISHER_ELEMENTS // max(each, 1), 1)
    return (slice(start, start + step) for start in range(0, len(g), step))


def _squared_products(g: Tensor, patches: Tensor, groups: int) -> Tensor:
    """Sum over samples and a weight row of (sum over positions of g patch)^2, `(channels,)`.

    The mean patch is taken out of the product and put back in float64, as in `_products`.
    """
    middle = patches.mean(2, keepdim=True)
    near = (patches - middle).unflatten(1, (groups, -1))
    products = wide(g.unflatten(1, (groups, -1)) @ near.mT)
    total = wide(g).sum(2, keepdim=True).unflatten(1, (groups, -1))
    products += total * wide(middle).unflatten(1, (groups, -1)).mT
    return products.square_().sum(3).flatten(1).sum(0)


def _products(values: Tensor, x: Tensor, sample: Sample) -> Tensor:
    """Sum over rows of value times input, `(channels, width)`.

    The inputs' mean is taken out of the product and put back in float64: entries of a row that
    differ by little are compared, and float32 products of large means would drown that.
    """
    window, total = sample.window, wide(channel_sum(values))
    if window is None:
        middle = channel_mean(x)
        return wide(gram(values, centred(x, middle))) + torch.outer(total, wide(middle))
    middle = channel_mean(x.flatten(2))
    maps = values.reshape(len(values), values.shape[1], *window.places(x.shape[2:]))
    rows = middle.view(window.groups, -1).repeat_interleave(window.taps, dim=1)
    rows = rows.repeat_interleave(len(total) // window.groups, dim=0)
    return wide(window.outer(maps, x, middle)) + total[:, None] * wide(rows)
