"""Runs of rows small enough to stay in a processor's cache, and memory for working on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from nodelens.statistics.reduce import channel_sum, per_channel

__all__ = ["Block", "blocks", "elements", "room"]

_ON_PROCESSOR = 1 << 19
_ELSEWHERE = 1 << 25
"""Elements of a block; an accelerator wants fewer and larger kernels."""

_memory = threading.local()


class Block:
    """Some rows of a sample, `start` to `stop` of axis 0, with what several statistics share.

    The tensors live in memory that the next block uses again, so nothing may keep them, and only
    what `spare` gives may be written to.
    """

    def __init__(self, values: Tensor, mean: Tensor, start: int) -> None:
        self.values, self.mean = values, mean
        self.start, self.stop = start, start + len(values)

    @cached_property
    def deviation(self) -> Tensor:
        """Return the values minus the mean of their channel in the whole sample."""
        mean = per_channel(self.mean.to(self.values.dtype), self.values)
        return torch.sub(self.values, mean, out=self.room("deviation"))

    @cached_property
    def square(self) -> Tensor:
        """Return the squared deviations."""
        return torch.mul(self.deviation, self.deviation, out=self.room("square"))

    @cached_property
    def size(self) -> Tensor:
        """Return the absolute values."""
        return torch.abs(self.values, out=self.room("size"))

    def power_sums(self, order: int) -> list[Tensor]:
        """Return the sums of the second to the `order`-th power of deviations, `(channels,)`."""
        sums = [channel_sum(self.square)]
        if order > 2:
            power = torch.mul(self.deviation, self.square, out=self.spare())
            sums.append(channel_sum(power))
            sums.append(channel_sum(torch.mul(self.square, self.square, out=power)))
        return sums

    def near_zero(self, eps: float) -> Tensor:
        """Return how many absolute values are at most `eps`, int64 `(channels,)`."""
        # Into floats, since torch compares into booleans, and adds them up, many times slower.
        return channel_sum(torch.le(self.size, eps, out=self.spare())).long()

    def spare(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return room of the shape of the values, for the statistic at work alone."""
        return self.room("spare", dtype)

    def room(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return memory of the shape of the values, what it holds being undefined."""
        return room(name, self.values, self.values.dtype if dtype is None else dtype)


def room(name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of the shape of `like` in memory of this thread's that is used again.

    Fresh memory for every pass would cost more, in page faults, than the arithmetic.
    """
    kept: dict[object, Tensor] = vars(_memory).setdefault("rooms", {})
    key = (name, dtype, like.device)
    if key not in kept or kept[key].numel() < like.numel():
        with torch.inference_mode(False):
            size = max(like.numel(), elements(like))
            kept[key] = torch.empty(size, dtype=dtype, device=like.device)
    return kept[key][: like.numel()].view(like.shape)


def blocks(values: Tensor, mean: Tensor) -> Iterator[Block]:
    """Yield the rows of `(rows, channels)` or `(batch, channels, positions)` block by block."""
    if not values.numel():
        return
    step = max(elements(values) // values[0].numel(), 1)
    for start in range(0, len(values), step):
        yield Block(values[start : start + step], mean, start)


def elements(values: Tensor) -> int:
    """Return how many elements a block of such values has."""
    return _ON_PROCESSOR if values.device.type == "cpu" else _ELSEWHERE
