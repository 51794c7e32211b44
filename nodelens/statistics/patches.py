"""Moments of maps: as the weights of a convolution see them, and position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from typing_extensions import Self

from nodelens.errors import MergeError
from nodelens.statistics import kernels
from nodelens.statistics.base import Statistic
from nodelens.statistics.blocks import elements
from nodelens.statistics.comoments import ClassMoments, class_labels, indicators
from nodelens.statistics.moments import CentralMoments, Moments
from nodelens.statistics.reduce import centred, wide
from nodelens.statistics.sample import Sample
from nodelens.statistics.window import Window

__all__ = ["ClassPatchMoments", "PatchMoments", "PositionMoments"]


@dataclass
class PatchMoments(CentralMoments):
    """Rows, mean and sum of squared deviations of every entry of a convolution's window.

    Shape `(input channels * taps,)`, in the order of a weight row. Values are summed over samples
    first; what each tap sees is then a sum over a small map, so nothing is unfolded. The sample's
    values are `(batch, channels, *space)`; without a window this is `Moments`.
    """

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        window = sample.window
        if window is None:
            plain = Moments.measure(sample)
            return cls(plain.rows, plain.mean, plain.m2)
        batch, *shape = sample.values.shape
        centre = wide(sample.flat.mean)
        first, second = _by_position(sample.flat).view(2, *shape)
        samples = torch.full_like(centre, batch)
        windows, sums, squares = _tap_sums(window, first, second, centre, samples)
        rows = windows * batch
        mean = sums / max(rows, 1)
        m2 = (squares - rows * mean.square()).clamp_(min=0)
        return cls(rows, mean + centre.repeat_interleave(window.taps), m2)


@dataclass
class ClassPatchMoments(ClassMoments):
    """Moments within every class of every entry of a convolution's window, as `ClassMoments`.

    `mean` and `m2` are `(classes, input channels * taps)`, `counts` windows, not samples. Measured
    as `PatchMoments` are, without unfolding; without a window this is `ClassMoments`.
    """

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        window = sample.window
        if window is None:
            return super().measure(sample)
        labels = class_labels(sample)
        # Only those of the batch: room for every class there is would be far more than the maps.
        present = labels.unique() if len(labels) else labels.new_zeros(1)
        found = _class_windows(sample.flat, window, sample.values.shape[2:], present, labels)
        spread = [x.new_zeros((indicators(labels).shape[1], *x.shape[1:])) for x in found]
        for whole, part in zip(spread, found, strict=True):
            whole[present] = part
        return cls(int(spread[0].sum()), *spread)


@dataclass
class PositionMoments(CentralMoments):
    """Moments over samples of every channel at every position, `(channels * positions,)`.

    `space` is the size of the maps, which must be the same in every batch.
    """

    space: tuple[int, ...] = ()

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        flat = replace(sample, values=sample.values.flatten(1), window=None)
        found = Moments.measure(flat)
        return cls(found.rows, found.mean, found.m2, space=tuple(sample.values.shape[2:]))

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


def _by_position(maps: Sample) -> torch.Tensor:
    """Sums over the batch of deviations and of their squares, `(2, channels, positions)`."""
    if (found := kernels.by_position(maps.values, maps.mean)) is not None:
        return found
    sums = wide(maps.mean).new_zeros(2, *maps.values.shape[1:])
    for block in maps.blocks():
        sums += torch.stack([block.deviation.sum(0), block.square.sum(0)])
    return sums


def _class_windows(
    maps: Sample,
    window: Window,
    space: Sequence[int],
    present: torch.Tensor,
    labels: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windows, mean and sum of squared deviations of every entry, for the classes `present`."""
    member = (labels[:, None] == present).to(maps.values.dtype)
    samples = member.sum(0)
    centre, deviation = _class_centres(maps, member, samples)
    powers = deviation.flatten(1), deviation.square().flatten(1)
    parts = []
    for some in torch.arange(len(present)).split(_at_once(deviation)):
        first, second = (wide(member[:, some].mT @ x).view(-1, *space) for x in powers)
        each = wide(samples[some]).repeat_interleave(deviation.shape[1])
        parts.append(_tap_sums(window, first, second, centre[some].flatten(), each))
    sums, squares = (
        torch.cat(x).view(len(present), -1) for x in list(zip(*parts, strict=True))[1:]
    )
    counts = samples.long() * parts[0][0]
    mean = sums / counts.clamp(min=1)[:, None]
    m2 = (squares - counts[:, None] * mean.square()).clamp_(min=0)
    return counts, mean + centre.repeat_interleave(window.taps, 1), m2


def _at_once(maps: torch.Tensor) -> int:
    """How many classes' sums of maps to hold at a time."""
    return int(max(elements(maps) // max(maps.shape[1] * maps.shape[2], 1), 1))


def _class_centres(
    maps: Sample, member: torch.Tensor, samples: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of every channel in every class, 0 without samples, and the values less that."""
    deviation = maps.deviation
    offset = (member.mT @ deviation.mean(2)) / samples.clamp(min=1)[:, None]
    centre = (maps.refined_mean + wide(offset)) * (samples > 0)[:, None]
    return centre, centred(deviation, member @ offset)


def _tap_sums(
    window: Window,
    first: torch.Tensor,
    second: torch.Tensor,
    centre: torch.Tensor,
    samples: torch.Tensor,
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Windows a map, and sums over all windows of the centred value and its square.

    Padding counts as minus centre; `samples` `(channels,)` is how many maps were summed.
    """
    ends = [1] * (first.ndim - 1)
    shift = centre.view(-1, *ends)
    # Padding holds zero, that is minus the centre: pad zeros where values live, then correct.
    inside = window.padded(torch.ones_like(first[:1])[None], value=0.0)[0]
    outside = (1 - inside) * samples.view(-1, *ends)
    padded_first = window.padded(first[None])[0] * inside - shift * outside
    padded_second = window.padded(second[None])[0] * inside + shift.square() * outside
    sums, squares = window.tap_sums(padded_first), window.tap_sums(padded_second)
    return prod(window.places(first.shape[1:])), sums, squares
