"""Which rows of an activation count, and which target belongs to each."""

from __future__ import annotations

from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import MissingTargetsError, ShapeError
from nodelens.model.layers import Layer

__all__ = ["counted_rows", "labelled_rows", "row_targets"]

_IGNORED = -100


def counted_rows(values: Tensor, batch: Batch, layer: Layer) -> Tensor | None:
    """Return which entries of axis 0 count, bool; None when all do.

    Tokens that are padding do not, in `(batch * tokens, channels)` rows however the model lays
    them out; an activation with one row a sample has no padding, nor has an image.
    """
    mask = batch.mask
    if mask is None or (len(values) == len(mask) and values.ndim != 3):
        return None
    if values.ndim == 3 and values.shape[2] == mask.shape[1]:
        raise ShapeError(
            f"layer {layer.name!r} is a convolution over padded tokens, whose rows mix padding in: "
            "leave the layer out, or give batches without padding"
        )
    if values.ndim > 2:
        return None
    if len(values) != mask.numel():
        raise ShapeError(
            f"layer {layer.name!r} has {len(values)} rows for a mask of {tuple(mask.shape)}: "
            "which of them are padding cannot be told"
        )
    return mask.flatten().to(values.device)


def row_targets(targets: Tensor | None, rows: int, layer: Layer) -> Tensor:
    """Return the target of every row, `(rows,)` or `(rows, targets)`.

    A target a sample is that of all its tokens and positions; a target a token is its own.
    """
    if targets is None:
        raise MissingTargetsError(
            f"layer {layer.name!r}: targets are needed and the batch has none; "
            "give batches as (inputs, targets)"
        )
    samples = len(targets)
    if rows == samples and targets.ndim <= 2:
        spread = targets
    elif not targets.is_floating_point() and targets.ndim > 1 and targets.numel() == rows:
        spread = targets.flatten()
    elif rows % max(samples, 1) == 0 and targets.ndim <= 2:
        spread = targets.repeat_interleave(rows // samples, dim=0)
    else:
        raise ShapeError(
            f"layer {layer.name!r} has {rows} rows for targets of shape {tuple(targets.shape)}, "
            "expected one target, or one vector of numbers, a sample"
        )
    return spread.squeeze(1) if spread.ndim == 2 and spread.shape[1] == 1 else spread


def labelled_rows(targets: Tensor) -> Tensor | None:
    """Return which rows have something to predict, bool; None when all have."""
    if targets.is_floating_point() or targets.ndim != 1 or not bool((targets == _IGNORED).any()):
        return None
    return targets != _IGNORED
