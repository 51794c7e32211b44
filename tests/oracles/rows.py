"""From maps to rows: pixels, pooled maps, and a convolution's windows unfolded with NumPy alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.oracles.capture import Array, Captured

_NUMPY_PADDING = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def pixels(maps: Array) -> Array:
    """Return `(samples * positions, channels)` from maps, rows as they are."""
    if maps.ndim == 2:
        return maps
    return np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])


def pooled(maps: Array) -> Array:
    """Return `(samples, channels)`, the mean over space."""
    return maps if maps.ndim == 2 else maps.reshape(*maps.shape[:2], -1).mean(-1)


def row_targets(captured: Captured) -> Array:
    """Return the target of every row, one target a sample being that of all its positions."""
    assert captured.targets is not None
    rows = pixels(captured.outputs)
    return captured.targets.repeat(len(rows) // len(captured.targets), axis=0)


def windows(captured: Captured) -> Array:
    """Return `(samples, positions, input channels, taps)`: what the kernel sees everywhere."""
    module: Any = captured.module
    widths = [_padding(module, axis) for axis in range(len(module.kernel_size))]
    source = np.pad(captured.inputs, [(0, 0), (0, 0), *widths], _NUMPY_PADDING[module.padding_mode])
    space = captured.outputs.shape[2:]
    seen = []
    for taps in product(*(range(size) for size in module.kernel_size)):
        index: list[Any] = [slice(None), slice(None)]
        for axis, tap in enumerate(taps):
            start, step = tap * module.dilation[axis], module.stride[axis]
            index.append(slice(start, start + (space[axis] - 1) * step + 1, step))
        seen.append(source[tuple(index)])
    stacked = np.stack(seen, -1)
    batch, channels = stacked.shape[:2]
    return np.moveaxis(stacked.reshape(batch, channels, -1, stacked.shape[-1]), 2, 1)


def _padding(module: Any, axis: int) -> tuple[int, int]:
    if module.padding == "same":
        total = module.dilation[axis] * (module.kernel_size[axis] - 1)
        return total // 2, total - total // 2
    if module.padding == "valid":
        return 0, 0
    return module.padding[axis], module.padding[axis]


def patches(captured: Captured) -> Array:
    """Return all that the layer reads, `(rows, input channels * taps)`."""
    if not captured.is_convolution:
        return captured.inputs
    seen = windows(captured)
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


def group_of(captured: Captured, channel: int) -> slice:
    """Return which of the layer's input channels a channel reads."""
    module: Any = captured.module
    groups = getattr(module, "groups", 1) if captured.is_convolution else 1
    inputs = captured.inputs.shape[1] // groups
    outputs = captured.outputs.shape[1] // groups
    group = channel // outputs
    return slice(group * inputs, (group + 1) * inputs)
