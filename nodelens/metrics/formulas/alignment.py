"""How weights, inputs and updates point the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas.basics import ratio

__all__ = [
    "class_quotient",
    "covariance_alignment",
    "group_blocks",
    "group_total",
    "principal_cosine",
    "rayleigh_quotient",
    "row_correlation",
    "total_squares",
]

_ROUNDING = 1e-6
"""Share of the largest variance below which float32 values do not tell a direction from none."""


def rayleigh_quotient(
    variance: Tensor,
    squared_norm: Tensor,
    total_variance: Tensor | None,
    width: int,
    regularization: float,
) -> Tensor:
    """Return w' (S + reg I) w / w'w, shape `(channels,)`, over the trace of S + reg I if given.

    `variance` is w' S w, the variance of what the row makes of its input; `total_variance` the
    trace of S, `()` or `(channels,)`. A row of zeros scores 0.
    """
    quotient = ratio(variance + regularization * squared_norm, squared_norm)
    if total_variance is None:
        return quotient
    return ratio(quotient, total_variance + regularization * width)


def row_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the absolute Pearson correlation of the rows of `a` and `b`, `(channels,)`, in [0, 1].

    Rows without variance score 0.
    """
    if a.shape != b.shape:
        raise InvalidValueError(f"rows of {tuple(a.shape)} against rows of {tuple(b.shape)}")
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return ratio((a * b).sum(1), size).abs().clamp_(max=1)


def group_total(values: Tensor, channels: int, groups: int) -> Tensor:
    """Return the sum over the inputs each channel sees, `(channels, ...)`: those of its group.

    `values` is `(inputs, ...)`, groups one after the other.
    """
    totals: Tensor = values.unflatten(0, (groups, -1)).sum(1)
    return totals.repeat_interleave(channels // groups, dim=0)


def group_blocks(m2: Tensor, groups: int) -> Tensor:
    """Return the blocks of a matrix over all inputs that one group sees, `(groups, width, width)`.

    A matrix that holds nothing but these blocks already is left as it is.
    """
    if m2.ndim == 3:
        return m2
    parts = m2.unflatten(0, (groups, -1)).unflatten(2, (groups, -1))
    blocks: Tensor = parts.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    return blocks


def class_quotient(
    counts: Tensor,
    variance: Tensor,
    squared_norm: Tensor,
    total_variance: Tensor | None,
    width: int,
    regularization: float,
) -> Tensor:
    """Return the mean over classes of the Rayleigh quotient within one, shape `(channels,)`.

    `counts` `(classes,)` are the weights; variances are `(classes, channels)`.
    """
    each = rayleigh_quotient(variance, squared_norm, total_variance, width, regularization)
    share = counts.to(each.dtype) / counts.sum()
    return (each * share[:, None]).sum(0)


def total_squares(counts: Tensor, mean: Tensor, m2: Tensor) -> Tensor:
    """Return sums of squared deviations of all rows from those of every class, `(channels,)`.

    `mean` and `m2` are `(classes, channels)`; what is added is the variance between classes.
    """
    weight = counts.to(mean.dtype)[:, None]
    centre = (mean * weight).sum(0) / weight.sum().clamp(min=1)
    return m2.sum(0) + ((mean - centre).square() * weight).sum(0)


def principal_cosine(rows: Tensor, blocks: Tensor, k: int) -> Tensor:
    """Return the largest absolute cosine with one of k principal directions, `(channels,)`.

    `rows` are `(channels, width)`, `blocks` `(groups, width, width)` what the inputs of every group
    have for sums of products of deviations. Directions without variance do not count, since there
    any would do as well as any other.
    """
    values, vectors = torch.linalg.eigh(blocks)
    values, leading = values[:, -k:], vectors[:, :, -k:]
    varies = values > values[:, -1:].clamp(min=0) * _ROUNDING
    along = (rows.unflatten(0, (len(blocks), -1)) @ leading).abs() * varies[:, None]
    return ratio(along.amax(2).flatten(), rows.norm(dim=1)).clamp_(max=1)


def covariance_alignment(rows: Tensor, blocks: Tensor) -> Tensor:
    """Return |S w| / (|w| |S|), shape `(channels,)`, in [0, 1]; shapes as for `principal_cosine`.

    In the principal directions V, with variances l, that is the norm of (w'V) l over those of w and
    l: no decomposition is needed.
    """
    moved = rows.unflatten(0, (len(blocks), -1)) @ blocks
    size = blocks.flatten(1).norm(dim=1)[:, None] * rows.norm(dim=1).unflatten(0, (len(blocks), -1))
    return ratio(moved.norm(dim=2), size).flatten().clamp_(max=1)
