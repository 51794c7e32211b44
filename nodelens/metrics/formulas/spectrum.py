"""The spectrum of what a layer gives, and how its channels group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from nodelens.metrics.formulas.basics import ratio

__all__ = [
    "cluster_gap",
    "cosines",
    "normalised_spectrum",
    "participation_ratio",
    "spectral_entropy",
    "spectral_overlap",
]


def cosines(products: Tensor, squares: Tensor, start: int = 0) -> Tensor:
    """Return the cosine of every pair of channels from sums of products, `(rows, channels)`.

    `products` is the whole matrix or a block from row `start`, `squares` `(channels,)` the whole's
    diagonal. A channel that is always 0 has the cosine 0 with every other.
    """
    size = squares.clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(size), size)
    mine = scale[start : start + len(products)]
    return (products * mine[:, None]).mul_(scale).clamp_(-1, 1)


def normalised_spectrum(matrix: Tensor) -> Tensor:
    """Return the eigenvalues of a covariance, or of any multiple of it, largest first, sum 1.

    `(channels,)`; all 0 where nothing varies.
    """
    scale = matrix.diagonal().sum()
    if not bool(scale > 0):
        return torch.zeros_like(matrix.diagonal())
    values: Tensor = torch.linalg.eigvalsh(matrix / scale).flip(0).clamp_(min=0)
    return values / values.sum()


def spectral_entropy(spectrum: Tensor) -> Tensor:
    """Return the entropy of shares that sum to 1, in nats, `()`."""
    entropy: Tensor = torch.special.entr(spectrum).sum()
    return entropy


def participation_ratio(matrix: Tensor) -> Tensor:
    """Return (sum of eigenvalues)^2 over the sum of their squares, `()`; 0 where nothing varies."""
    trace = matrix.diagonal().sum()
    return ratio(trace.square(), matrix.square().sum())


def spectral_overlap(spectrum: Tensor, reference: Tensor) -> Tensor:
    """Return 1 minus the total variation distance of two normalised spectra, `()`, in [0, 1].

    Both are sorted, largest first; the shorter one ends with zeros. Two spectra of zeros overlap.
    """
    length = max(len(spectrum), len(reference))
    mine, theirs = (pad(s, (0, length - len(s))) for s in (spectrum, reference))
    # With what is missing from a sum of 1 as one more entry: a dead layer overlaps with no other.
    missing = (mine.sum() - theirs.sum()).abs()
    return (1 - 0.5 * ((mine - theirs).abs().sum() + missing)).clamp(0, 1)


def cluster_gap(rho: Tensor) -> Tensor:
    """Return the largest gap behind the second eigenvalue of the normalised Laplacian, `()`.

    Affinities are abs(rho), 0 with oneself. A channel with no affinity is a group of its own, its
    eigenvalue 0. Below three channels 0.
    """
    if len(rho) < 3:
        return rho.new_zeros(())
    affinity = rho.abs()
    affinity.diagonal().zero_()
    degree = affinity.sum(1)
    scale = ratio(torch.ones_like(degree), degree.sqrt())
    laplacian = -(affinity * scale[:, None]).mul_(scale)
    laplacian.diagonal().copy_((degree > 0).to(rho.dtype))
    values: Tensor = torch.linalg.eigvalsh(laplacian)
    return values.diff()[1:].max().clamp(min=0)
