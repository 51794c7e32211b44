"""What stands in the place of silenced channels: zero, a mean, other rows, or given values."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import ShapeError, TooFewRowsError
from nodelens.interventions.channels import Condition, Part
from nodelens.model.gather import replaced
from nodelens.model.layers import Layer, canonical, first_tensor
from nodelens.model.rows import counted_rows
from nodelens.statistics import Moments, Sample

__all__ = ["channel_moments", "other_rows", "silent", "without_weights"]


def silent(raw: Any, part: Part, condition: Condition, batch: Batch) -> Any:
    """Return what a layer takes in or gives, its tensor with the part's channels replaced."""
    tensor = first_tensor(raw)
    if tensor is None:
        raise ShapeError(
            f"layer {part.layer.name!r} has no tensor to silence: {type(raw).__name__}"
        )
    return replaced(raw, silent_tensor(tensor, part, condition, batch))


def silent_tensor(tensor: Tensor, part: Part, condition: Condition, batch: Batch) -> Tensor:
    """Return a copy of a tensor with the part's channels replaced."""
    axis = _channel_axis(tensor, part.layer)
    indices = part.indices.to(tensor.device)
    if not len(indices):
        return tensor
    if condition.value == "zero":
        return tensor.index_fill(axis, indices, 0)
    if condition.value == "resample":
        source = _resampled(tensor, axis, part, condition.seed, batch)
    else:
        fill = part.fill
        if fill is None:
            fill = channel_moments(tensor, part, batch).mean[indices]
        source = _spread(fill.to(tensor), axis, tensor)
    return tensor.index_copy(axis, indices, source)


def channel_moments(value: Any, part: Part, batch: Batch) -> Moments:
    """Return the moments of every channel of a layer's values over the rows that count."""
    values = canonical(value, part.layer, part.site, batch.axes())
    kept = counted_rows(values, batch, part.layer)
    values = values if kept is None else values[kept]
    found: Moments = Moments.measure(Sample(values.flatten(2) if values.ndim > 2 else values))
    return found


def other_rows(rows: int, seed: int, layer: str) -> Tensor:
    """Return for every row the number of another one, `(rows,)`: a random cycle through all.

    The same rows for the same number and seed, so that all layers take theirs from one another
    alike. Raises TooFewRowsError for a single row.
    """
    if rows < 2:
        raise TooFewRowsError(
            f"layer {layer!r}: value 'resample' takes values from other rows, and the batch has "
            f"{rows}, expected at least 2"
        )
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners


def without_weights(module: nn.Module, part: Part, inputs: Any) -> Any:
    """Return what a layer gives for `inputs` with the part's weights at zero.

    A twin computes it that shares all but this weight: nothing of the layer itself is written.
    """
    assert part.fill is not None
    weight, twin = module.get_parameter("weight"), copy(module)
    silent = weight.detach().masked_fill(part.fill.to(weight.device), 0)
    twin._parameters = {**module._parameters, "weight": silent}  # type: ignore[dict-item]
    # The class's own: an instance's may be another's wrapper that leads back to the module.
    return type(module).forward(twin, inputs)


def _resampled(tensor: Tensor, axis: int, part: Part, seed: int, batch: Batch) -> Tensor:
    """The part's channels with their rows moved round; padding stays where it is."""
    layer, axes = part.layer, batch.axes()
    turned = layer.window is None and _tokens_first(tensor, axes)
    picked = tensor.index_select(axis, part.indices.to(tensor.device))
    picked = picked.transpose(0, 1) if turned else picked
    rows = picked.reshape(-1, picked.shape[-1]) if layer.window is None else picked
    if axis == 0:  # a single map, without a batch
        rows = picked.unsqueeze(0)
    numbers = torch.arange(len(rows), device=tensor.device)
    if batch.mask is not None:
        kept = counted_rows(canonical(tensor, layer, part.site, axes), batch, layer)
        numbers = numbers if kept is None else numbers[kept]
    moved = rows.clone()
    partners = other_rows(len(numbers), seed, layer.name).to(tensor.device)
    moved[numbers] = rows[numbers[partners]]
    moved = moved.view(picked.shape)
    return moved.transpose(0, 1) if turned else moved


def _tokens_first(tensor: Tensor, axes: tuple[int, int] | None) -> bool:
    if axes is None or tensor.ndim < 3 or axes[0] == axes[1]:
        return False
    return tuple(tensor.shape[:2]) == axes[::-1]


def _channel_axis(tensor: Tensor, layer: Layer) -> int:
    # Not counted from the end for linear layers of one axis alone.
    back = 1 if layer.window is None else len(layer.window.kernel) + 1
    return tensor.ndim - back


def _spread(fill: Tensor, axis: int, tensor: Tensor) -> Tensor:
    shape, size = [1] * tensor.ndim, list(tensor.shape)
    shape[axis] = size[axis] = len(fill)
    return fill.view(shape).expand(size)
