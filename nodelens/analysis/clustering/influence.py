"""How much of what a channel takes in comes from which channel of the layer before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nodelens.analysis.arrays import Array, array
from nodelens.errors import InvalidValueError, ShapeError, whole

__all__ = ["arriving", "checked_influence", "influence_of", "spread_of"]


def influence_of(
    weights: Tensor, spread: Tensor | None, sources: int | None = None, groups: int = 1
) -> Tensor:
    """Return abs W, taps summed, times the standard deviation of what arrives, (targets, sources).

    `weights` are `(targets, inputs, *kernel)`. `spread` is `(inputs,)` of all groups. `sources` are
    fewer than inputs where maps were flattened: a channel's positions then stand side by side, and
    are summed. None for `spread` leaves the activations out.
    """
    size = arriving(weights, groups)
    sources = size.shape[1] if sources is None else sources
    if sources < 1 or size.shape[1] % sources:
        raise ShapeError(
            f"the weights take {size.shape[1]} inputs, which is no multiple of {sources} sources"
        )
    if spread is not None:
        if spread.shape not in ((size.shape[1],), (sources,)):
            raise ShapeError(
                f"the activations have {len(spread)} channels, expected {size.shape[1]} as the "
                "weights take"
            )
        size = size * spread.to(size).repeat_interleave(size.shape[1] // len(spread))
    total: Tensor = size.unflatten(1, (sources, -1)).sum(2)
    return total


def checked_influence(influence: Any) -> Array:
    """Return influence `(targets, sources)` over its largest value.

    Raises ShapeError, NonFiniteError, InvalidValueError for a value below 0.
    """
    found = array(influence, "influence")
    if found.ndim != 2 or not found.size:
        raise ShapeError(f"influence has shape {found.shape}, expected (targets, sources)")
    if (found < 0).any():
        raise InvalidValueError(f"influence has the value {found.min():g}, expected none below 0")
    # Only shares matter, and sums of very small or very large numbers may leave the floats.
    largest = found.max()
    return found / largest if largest > 0 else found


def arriving(weights: Tensor, groups: int = 1) -> Tensor:
    """Return abs W with taps summed, `(targets, inputs)`; 0 between groups of a convolution."""
    if weights.ndim < 2:
        raise ShapeError(f"weights have shape {tuple(weights.shape)}, expected (targets, inputs)")
    size = weights.detach().to("cpu", torch.float64).abs()
    size = size.flatten(2).sum(2) if weights.ndim > 2 else size
    if len(size) % whole("groups", groups, 1):
        raise InvalidValueError(f"groups is {groups}, expected a divisor of {len(size)} targets")
    return size if groups == 1 else torch.block_diag(*size.chunk(groups))


def spread_of(activations: Tensor, maps: bool) -> Tensor:
    """Return the standard deviation (over n) of every channel, `(channels,)`.

    Channels are axis 1 of maps, else the last axis; all other axes are rows.
    """
    if activations.ndim < 2:
        raise ShapeError(
            f"activations have shape {tuple(activations.shape)}, expected (rows, channels)"
        )
    values = activations.detach().to("cpu", torch.float64)
    rows = values.movedim(1 if maps else -1, -1).flatten(0, -2)
    if not len(rows):
        raise ShapeError("activations have no row, expected at least one")
    # Over the largest: squares of 1e-160 are no floats.
    largest = rows.abs().max() if rows.numel() else rows.new_ones(())
    largest = largest if largest > 0 else torch.ones_like(largest)
    return (rows / largest).std(0, unbiased=False) * largest
