"""How a site's tensor becomes rows: one named view for each way of looking at a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nodelens.errors import InvalidValueError, MissingTargetsError, ShapeError, nearest
from nodelens.model.layers import Layer, is_transposed_linear, weight_rows
from nodelens.model.norms import norm_scale, normed

__all__ = ["VIEWS", "look", "viewed_weights"]

View = Callable[[Tensor, Layer, nn.Module, "Tensor | None"], Tensor]
"""(canonical tensor, layer, module, reference weight rows) -> `(rows, channels)` or maps."""


def look(view: str, x: Tensor, layer: Layer, module: nn.Module, reference: Tensor | None) -> Tensor:
    """Return `x` under a view, channels on axis 1."""
    if view not in VIEWS:
        raise InvalidValueError(f"unknown view {view!r}{nearest(view, VIEWS)}")
    return VIEWS[view](x, layer, module, reference)


def _rows(x: Tensor, *_: object) -> Tensor:
    return x.flatten(2) if x.ndim > 2 else x


def _maps(x: Tensor, *_: object) -> Tensor:
    return x


def _feature_maps(x: Tensor, layer: Layer, module: nn.Module, _: object = None) -> Tensor:
    """What the next layer is shown: behind the BatchNorm that follows, if any, and a ReLU."""
    return normed(x, module).relu()


def _positions(x: Tensor, *_: object) -> Tensor:
    """Every channel at every position a channel of its own, rows being samples."""
    return x.flatten(1)


def _pooled(x: Tensor, *_: object) -> Tensor:
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def _patches(x: Tensor, layer: Layer, *_: object) -> Tensor:
    return x if layer.window is None else layer.window.patches(x)


def _tap_sum(x: Tensor, layer: Layer, module: nn.Module, _: object = None) -> Tensor:
    """What the kernel, summed over its taps, makes of every pixel."""
    if layer.window is None:
        return linear(x, weight_rows(module).to(x.dtype))
    groups = layer.window.groups
    weight = summed_kernel(weight_rows(module), layer).to(x.dtype)
    pixels = x.flatten(2)
    grouped = pixels.unflatten(1, (groups, -1))
    made = torch.einsum("bgip,goi->bgop", grouped, weight.unflatten(0, (groups, -1)))
    return made.flatten(1, 2)


def _pooled_tap_sum(x: Tensor, layer: Layer, module: nn.Module, _: object = None) -> Tensor:
    if layer.window is None:
        return _tap_sum(x, layer, module)
    return _tap_sum(x.flatten(2).mean(2, keepdim=True), layer, module).squeeze(2)


def _change(x: Tensor, layer: Layer, module: nn.Module, reference: Tensor | None) -> Tensor:
    """What the change of the weights since the reference makes of the input."""
    change = weight_difference(layer, module, reference).to(x.dtype)
    if layer.window is None:
        return linear(x, change)
    window = layer.window
    kernel = change.unflatten(1, (-1, *window.kernel))
    axes = len(window.kernel)
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[axes - 1]
    made: Tensor = convolve(
        window.padded(x), kernel, None, window.stride, 0, window.dilation, window.groups
    )
    return made.flatten(2)


def summed_kernel(rows: Tensor, layer: Layer) -> Tensor:
    """Return weight rows summed over taps, shape `(channels, input channels of the group)`."""
    return rows if layer.window is None else rows.unflatten(1, (-1, layer.window.taps)).sum(2)


def weight_difference(layer: Layer, module: nn.Module, reference: Tensor | None) -> Tensor:
    """Return weight rows minus the reference's, shape `(channels, width)`."""
    if reference is None:
        raise MissingTargetsError(
            f"layer {layer.name!r} has no initial weights: pass initial_weights=, a state dict "
            "or {layer name: weight} from before training"
        )
    rows = weight_rows(module)
    before = reference.to(rows.device)
    before = before.T if is_transposed_linear(module) else before.flatten(1)
    if before.shape != rows.shape:
        raise ShapeError(
            f"the initial weight of layer {layer.name!r} has rows {tuple(before.shape)}, "
            f"expected {tuple(rows.shape)}"
        )
    return rows - before


def viewed_weights(view: str, layer: Layer, module: nn.Module, reference: Tensor | None) -> Tensor:
    """Return the weight rows under a view: as they are, their change, or summed over taps.

    Under "norm" they are the scale of the BatchNorm that follows, one number a row.
    """
    if view == "norm":
        return norm_scale(layer, module)
    if view == "change":
        return weight_difference(layer, module, reference)
    rows = weight_rows(module)
    return summed_kernel(rows, layer) if view == "tap_sum" else rows


VIEWS: dict[str, View] = {
    "rows": _rows,
    "maps": _maps,
    "feature_maps": _feature_maps,
    "positions": _positions,
    "pooled": _pooled,
    "patches": _patches,
    "tap_sum": _tap_sum,
    "pooled_tap_sum": _pooled_tap_sum,
    "change": _change,
}
"""rows: samples, tokens or pixels. maps: untouched, for statistics that know the window.
feature_maps: behind the norm that follows, and a ReLU. positions: samples, a channel at a position
being a channel. pooled: samples, averaged over space. patches: a convolution's windows unfolded.
tap_sum, pooled_tap_sum: through the summed kernel. change: through the change of the weights since
the reference."""
