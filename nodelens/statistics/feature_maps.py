"""What single feature maps are like: their ranks, and what each adds to the others of its image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.errors import ShapeError
from nodelens.statistics.moments import Mean
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample

__all__ = ["ChannelIndependence", "MapRanks", "nuclear_norms"]

_AT_ONCE = 1 << 21
"""Numbers of matrices that are decomposed at a time."""


@dataclass
class MapRanks(Mean):
    """Sum over images of the rank of every channel's feature map, `(channels,)`.

    `rows` counts images. Maps are `(batch, channels, height, width)`; ranks are numerical, as
    `torch.linalg.matrix_rank` tells them in the precision of the maps (Lin et al., 2020).
    """

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        maps = _images(sample.values)
        total = wide(maps.new_zeros(maps.shape[1]))
        for part in maps.split(_step(maps)) if maps.numel() else ():
            total += torch.linalg.matrix_rank(part).sum(0)
        return cls(len(maps), total)


@dataclass
class ChannelIndependence(Mean):
    """Sum over images of what every channel adds to the nuclear norm, `(channels,)`.

    A channel's is the nuclear norm of the image's matrix of maps `(channels, positions)` less that
    of the matrix with the channel's row zeroed (Sui et al., 2021). `rows` counts images.
    """

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        maps = wide(_images(sample.values)).flatten(2)
        total = maps.new_zeros(maps.shape[1])
        for image in maps if maps.numel() else ():
            total += nuclear_norms(image[None]) - _without_each(image)
        return cls(len(maps), total)


def nuclear_norms(matrices: Tensor) -> Tensor:
    """Return the sum of the singular values of every matrix, `(matrices,)`.

    From the smaller product of each with itself, which is several times faster than a
    decomposition and good to 1e-7 of the largest in float64.
    """
    short = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    return _roots(short @ short.mT)


def _without_each(image: Tensor) -> Tensor:
    """The nuclear norm of `(channels, positions)` without each channel in turn, `(channels,)`."""
    channels, positions = image.shape
    rows = torch.arange(channels, device=image.device)
    found = []
    step = max(_AT_ONCE // min(channels, positions) ** 2, 1)
    whole = image @ image.T if channels <= positions else image.T @ image
    for some in rows.split(step):
        if channels <= positions:
            products = whole.repeat(len(some), 1, 1)
            at = torch.arange(len(some), device=image.device)
            products[at, some], products[at, :, some] = 0, 0
        else:
            products = whole - image[some, :, None] * image[some, None, :]
        found.append(_roots(products))
    return torch.cat(found)


def _roots(products: Tensor) -> Tensor:
    """The sum of the roots of the eigenvalues, those that rounding alone makes being 0."""
    powers = torch.linalg.eigvalsh(products)
    least = powers[:, -1:].abs() * products.shape[-1] * torch.finfo(powers.dtype).eps
    return torch.where(powers > least, powers, 0).sqrt().sum(1)


def _images(values: Tensor) -> Tensor:
    if values.ndim != 4:
        raise ShapeError(
            f"feature maps of shape {tuple(values.shape)}, expected (images, channels, height, "
            "width): only two-dimensional convolutions have them"
        )
    return values


def _step(maps: Tensor) -> int:
    return max(_AT_ONCE // max(maps[0].numel(), 1), 1)
