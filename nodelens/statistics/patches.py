"""Moments of maps: as the weights of a convolution see them, and position by position."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from typing_extensions import Self

from nodelens.errors import MergeError
from nodelens.statistics.base import Sample, Statistic, wide
from nodelens.statistics.moments import Moments
from nodelens.statistics.reduce import channel_mean
from nodelens.statistics.window import Window

__all__ = ["PatchMoments", "PositionMoments"]


@dataclass
class PatchMoments(Moments):
    """Rows, mean and sum of squared deviations of every entry of a convolution's window.

    Shape `(input channels * taps,)`, in the order of a weight row. Values are summed over samples
    first; what each tap sees is then a sum over a small map, so nothing is unfolded. The sample's
    values are `(batch, channels, *space)`; without a window this is `Moments`.
    """

    @classmethod
    def measure(cls, sample: Sample, *, order: int = 2) -> Self:
        if sample.window is None:
            return super().measure(sample, order=2)
        x, window = sample.values, sample.window
        batch = len(x)
        centre = channel_mean(x.flatten(2)).to(x.dtype)
        deviation = x - centre.view(1, -1, *[1] * (x.ndim - 2))
        first = wide(deviation.sum(0))
        second = wide((deviation * deviation).sum(0))
        rows, sums, squares = _tap_sums(window, first, second, wide(centre), batch)
        mean = sums / max(rows, 1)
        m2 = (squares - rows * mean.square()).clamp_(min=0)
        return cls(rows, mean + wide(centre).repeat_interleave(window.taps), m2)

    @classmethod
    def joined(cls, mine: object, other: object) -> dict[str, int]:
        return {}


@dataclass
class PositionMoments(Moments):
    """Moments over samples of every channel at every position, `(channels * positions,)`.

    `space` is the size of the maps, which must be the same in every batch.
    """

    space: tuple[int, ...] = ()

    @classmethod
    def measure(cls, sample: Sample, *, order: int = 2) -> Self:
        flat = replace(sample, values=sample.values.flatten(1), window=None)
        found = Moments.measure(flat)
        return cls(found.rows, found.mean, found.m2, space=tuple(sample.values.shape[2:]))

    @classmethod
    def joined(cls, mine: object, other: object) -> dict[str, int]:
        return {}

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, PositionMoments)
        if tuple(self.space) != tuple(other.space):
            raise MergeError(
                f"maps of {tuple(other.space)} after maps of {tuple(self.space)}: positions can "
                "only be compared between maps of one size"
            )

    def maps(self, values: torch.Tensor) -> torch.Tensor:
        """Return values by position as maps, shape `(channels, *space)`."""
        return values.view(-1, *self.space)


def _tap_sums(
    window: Window, first: torch.Tensor, second: torch.Tensor, centre: torch.Tensor, batch: int
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Sums over all windows of the centred value and its square; padding counts as minus centre."""
    shift = centre.view(-1, *[1] * (first.ndim - 1))
    # Padding holds zero, that is minus the centre: pad zeros where values live, then correct.
    inside = window.padded(torch.ones_like(first)[None], value=0.0)[0]
    outside = (1 - inside) * batch
    padded_first = window.padded(first[None])[0] * inside - shift * outside
    padded_second = window.padded(second[None])[0] * inside + shift.square() * outside
    sums, squares = window.tap_sums(padded_first), window.tap_sums(padded_second)
    ones = window.tap_sums(torch.ones_like(padded_first[:1]))
    return int(ones[0]) * batch, sums, squares
