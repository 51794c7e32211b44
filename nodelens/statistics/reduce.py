"""The few reductions over rows that all statistics are made of; channels are always axis 1."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.statistics import kernels

__all__ = [
    "centred",
    "channel_extremes",
    "channel_mean",
    "channel_sum",
    "gram",
    "mix",
    "per_channel",
    "wide",
    "wide_gram",
]

_BATCHED_GRAM_ELEMENTS = 1 << 24
_PANEL = 192
"""Channels of a panel of a symmetric product: half of such a square is worked out twice."""
_ROUNDING = 64
_WIDE_ROWS = 512
"""Rows that are copied to float64 at a time."""


def channel_sum(x: Tensor) -> Tensor:
    """Return the sum over rows, shape `(channels,)`, for `(rows, channels)` or maps."""
    # One axis at a time: over both at once torch adds a million numbers without pairing them.
    return x.sum(0) if x.ndim == 2 else x.sum(2).sum(0)


def channel_extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value over rows, each `(channels,)`."""
    return (x.amin(0), x.amax(0)) if x.ndim == 2 else (x.amin(2).amin(0), x.amax(2).amax(0))


def channel_mean(x: Tensor, total: Tensor | None = None) -> Tensor:
    """Return the mean over rows, shape `(channels,)`; zeros when there are no rows.

    `total` is the sum over rows, if it is known already.

    That of a constant channel is its value, bit for bit: a last bit of rounding would give it a
    variance, and constants a correlation with one another.
    """
    total = channel_sum(x) if total is None else total
    if not x.numel():
        return total
    mean = total / (x.numel() // x.shape[1])
    first = x[0] if x.ndim == 2 else x[0, :, 0]
    rounding = _ROUNDING * torch.finfo(x.dtype).eps
    if float(torch.sub(mean, first).div_(mean).abs_().min()) > rounding:
        return mean
    gap = (mean - first).abs()
    suspects = ((gap > 0) & (gap <= rounding * first.abs())).nonzero().flatten()
    if len(suspects):
        constant = suspects[_constant(x[:, suspects])]
        mean[constant] = first[constant]
    return mean


def _constant(x: Tensor) -> Tensor:
    rows = x if x.ndim == 2 else x.transpose(1, 2).flatten(0, 1)
    return (rows == rows[0]).all(0)


def per_channel(v: Tensor, like: Tensor) -> Tensor:
    """Return `v` of shape `(channels,)` or `(batch, channels)`, ready to broadcast over `like`."""
    return v if like.ndim == 2 else v.unsqueeze(-1)


def centred(x: Tensor, mean: Tensor) -> Tensor:
    """Return `x` minus a mean per channel: what keeps float32 sums of powers exact."""
    return x - per_channel(mean.to(x.dtype), x)


def gram(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over rows of `a_i b_j`, shape `(channels_a, channels_b)`.

    Maps are multiplied sample by sample, so that no axis moves; where the stack of products would
    be larger than the maps, they are laid out as rows first.
    """
    if a.ndim == 2:
        return _symmetric(a.mT) if a is b else a.mT @ b
    if a.shape[0] * a.shape[1] * b.shape[1] <= max(_BATCHED_GRAM_ELEMENTS, a.numel()):
        return torch.bmm(a, b.mT).sum(0)
    left = a.transpose(0, 1).reshape(a.shape[1], -1)
    if a is b:
        return _symmetric(left)
    return left @ b.transpose(0, 1).reshape(b.shape[1], -1).mT


def _symmetric(x: Tensor) -> Tensor:
    """Return `x` times its transpose, `(channels, channels)`, of which half is copied."""
    channels = len(x)
    if channels <= _PANEL:
        return x @ x.mT
    product = x.new_empty(channels, channels)
    for start in range(0, channels, _PANEL):
        stop = min(start + _PANEL, channels)
        torch.mm(x[start:stop], x[start:].mT, out=product[start:stop, start:])
    return product if kernels.mirror(product) else product.triu().add_(product.triu(1).mT)


def wide_gram(a: Tensor, b: Tensor) -> Tensor:
    """Return `gram` with products and sums in float64, whatever the values are in.

    Rounding of float32 products is beside the largest variance: where channels depend on each other
    it is more than what they leave undetermined.
    """
    left, right = (x if x.ndim == 2 else x.transpose(1, 2).flatten(0, 1) for x in (a, b))
    total = wide(a.new_zeros(left.shape[1], right.shape[1]))
    for mine, theirs in zip(left.split(_WIDE_ROWS), right.split(_WIDE_ROWS), strict=True):
        total.addmm_(wide(mine).mT, wide(theirs))
    return total


def mix(rows: int, other_rows: int) -> tuple[float, float]:
    """Return `(other share, rows * other_rows / total)`: the two weights of Chan's formulas."""
    total = rows + other_rows
    return (other_rows / total, rows * other_rows / total) if total else (0.0, 0.0)


def wide(x: Tensor) -> Tensor:
    """Return a copy of `x` in float64 (float32 on a device without it); integers stay integers."""
    if not x.is_floating_point():
        return x.clone()
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64, copy=True)
