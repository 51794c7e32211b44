"""Which rows of an activation count, and which target belongs to each."""

from __future__ import annotations

from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import MissingTargetsError, ShapeError
from nodelens.model.layers import Layer
from nodelens.model.loss import IGNORED

__all__ = ["counted_rows", "labelled_rows", "paired_rows", "row_targets"]


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

    A target a sample is that of all its tokens and positions; a target a token is its own. Class
    numbers of tokens are `(batch, tokens)`, numbers `(batch, tokens, targets)`: in two axes they
    are a vector a sample.
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
    elif targets.ndim == 3 and targets.shape[:2].numel() == rows:
        spread = targets.flatten(0, 1)
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
    if targets.is_floating_point() or targets.ndim != 1 or not bool((targets == IGNORED).any()):
        return None
    return targets != IGNORED


def paired_rows(
    values: Tensor, others: Tensor, batch: Batch, layer: Layer
) -> tuple[Tensor, Tensor]:
    """Return what two layers show in the same rows, each canonical, on the first one's device.

    Row by row, and position by position, where both have the same ones; else both are averaged
    over what counts of each sample.
    """
    others = others.to(values.device)
    if values.shape[:1] + values.shape[2:] == others.shape[:1] + others.shape[2:]:
        return values, others
    return _of_samples(values, batch, layer), _of_samples(others, batch, layer)


def _of_samples(values: Tensor, batch: Batch, layer: Layer) -> Tensor:
    """The mean over the positions or tokens of every sample, `(batch, channels)`."""
    counted, samples = counted_rows(values, batch, layer), batch.size()
    rows: Tensor = values.flatten(2).mean(2) if values.ndim > 2 else values
    if len(rows) % max(samples, 1):
        raise ShapeError(
            f"layer {layer.name!r} and what it is read beside have different rows, and {len(rows)} "
            f"cannot be averaged over {samples} samples"
        )
    if len(rows) == samples:
        return rows
    grouped: Tensor = rows.view(samples, -1, rows.shape[1])
    if counted is None:
        return grouped.mean(1)
    share = counted.view(samples, -1, 1).to(rows.dtype)
    # What does not count may be anything, NaN too.
    summed: Tensor = grouped.masked_fill(share == 0, 0).sum(1)
    return summed / share.sum(1).clamp(min=1)
