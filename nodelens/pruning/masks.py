"""Masks from scores: True is kept, equal scores go by index, and counts are exact."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from nodelens.interventions import channel_indices
from nodelens.model.layers import is_transposed_linear, weight_rows
from nodelens.model.loaded import check_loaded

__all__ = [
    "as_rows",
    "check_mask",
    "check_scores",
    "generator_for",
    "keep_best",
    "keep_pattern",
    "protected_mask",
    "ranked",
    "removed_count",
    "row_mask",
    "weight_of",
]

_ROUNDING = 1e-9


def removed_count(amount: float, n: int) -> int:
    """Return floor(amount * n), as real numbers have it: 0.29 of 100 is 29, not 28.

    >>> removed_count(0.29, 100), removed_count(0.5, 7)
    (29, 3)
    """
    return math.floor(amount * n + _ROUNDING)


def check_mask(name: str, mask: Any) -> None:
    """Raise InvalidValueError unless a layer's mask is a bool tensor that keeps something."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InvalidValueError(
            f"layer {name!r}: the mask is {given}, expected a bool tensor with True = kept"
        )
    if not bool(mask.any()):
        raise InvalidValueError(
            f"layer {name!r}: the mask removes all {mask.numel()}, expected at least one to be kept"
        )


def check_scores(scores: Tensor, where: str) -> Tensor:
    """Return finite scores in float64 on the CPU; NonFiniteError that counts those that are not."""
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        raise NonFiniteError(f"{where}: {bad} of {scores.numel()} scores are not finite")
    return scores.detach().to("cpu", torch.float64)


def generator_for(seed: int, name: str) -> torch.Generator:
    """Return a generator of a layer's own: what it draws does not depend on the other layers."""
    # torch's CPU generator takes in 32 bits of a seed and no more.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


def ranked(scores: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Return scores of which the lowest are to go, whatever the mode; of the same shape."""
    if mode == "random":
        return torch.rand(scores.shape, generator=generator, dtype=torch.float64)
    return -scores if mode == "high" else scores


def keep_best(scores: Tensor, removed: int, protected: Tensor | None = None) -> Tensor:
    """Return the mask, of the scores' shape, without the `removed` lowest; ties go by index.

    Protected entries stay, and if fewer than `removed` are not protected, all of those go.

    >>> keep_best(torch.tensor([1.0, 0.0, 0.0, -2.0]), 2)
    tensor([ True, False,  True, False])
    """
    order = torch.argsort(scores.flatten(), stable=True)
    if protected is not None:
        order = order[~protected.flatten()[order]]
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[order[:removed]] = False
    return keep.view(scores.shape)


def keep_pattern(scores: Tensor, nm: tuple[int, int], protected: Tensor | None = None) -> Tensor:
    """Return the mask, `(channels, width)`, that keeps the n best of every m along each row.

    Raises ShapeError when the width is not a multiple of m.
    """
    n, m = nm
    channels, width = scores.shape
    if width % m:
        raise ShapeError(f"rows of {width} weights do not divide into groups of {m}")
    order = torch.argsort(scores.view(channels, -1, m), dim=2, stable=True)
    keep = torch.ones(order.shape, dtype=torch.bool)
    keep.scatter_(2, order[:, :, : m - n], torch.zeros((), dtype=torch.bool).expand(order.shape))
    keep = keep.view(channels, width)
    return keep if protected is None else keep | protected[:, None]


def protected_mask(protected: Sequence[int] | Tensor | None, size: int, layer: str) -> Tensor:
    """Return which channels stay in every mode, bool `(channels,)`, from numbers or a mask."""
    mask = torch.zeros(size, dtype=torch.bool)
    if protected is not None:
        mask[channel_indices(protected, size, layer).cpu()] = True
    return mask


def weight_of(layer: nn.Module) -> Tensor:
    """Return a layer's weight, detached; ShapeError for a module without one of two axes or more.

    Norms have weights too, of one axis: they are not pruned on their own.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or isinstance(layer, nn.Embedding):
        raise ShapeError(
            f"a {type(layer).__name__} has no channels to prune, expected a linear layer "
            "or a convolution"
        )
    check_loaded(layer)
    return weight.detach()


def row_mask(layer: nn.Module, keep: Tensor) -> Tensor:
    """Return a mask of the weight's shape from one of channels, or of `(channels, width)`."""
    weight = weight_of(layer)
    rows = weight_rows(layer)
    full = (keep[:, None] if keep.ndim == 1 else keep).expand(rows.shape)
    shaped = full.T if is_transposed_linear(layer) else full.reshape(weight.shape)
    return shaped.contiguous().to(weight.device)


def as_rows(layer: nn.Module, values: Any) -> Tensor:
    """Return what has the weight's shape as one row a channel, `(channels, width)`.

    Raises ShapeError for another shape.
    """
    weight = weight_of(layer)
    if not isinstance(values, Tensor) or values.shape != weight.shape:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(f"scores are {shape}, expected the weight's shape {tuple(weight.shape)}")
    return values.T if is_transposed_linear(layer) else values.flatten(1)
