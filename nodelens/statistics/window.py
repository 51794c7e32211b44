"""The sliding window of a convolution, and its inputs' moments tap by tap without unfolding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from nodelens.errors import IncompatibleModelError, ShapeError

__all__ = ["Window"]

_PAD_MODES = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation, padding (before, after) per axis, and groups of a convolution.

    `space` is the size of the maps that `padding` is for, empty for any. `obscured` says why the
    padding is not known; whoever needs it then gets IncompatibleModelError.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    padding_mode: str = "zeros"
    space: tuple[int, ...] = ()
    obscured: str = ""

    @property
    def taps(self) -> int:
        """Return the number of kernel positions."""
        return prod(self.kernel)

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Return maps `(batch, channels, *space)` with the convolution's own padding applied."""
        if self.obscured:
            raise IncompatibleModelError(self.obscured)
        if self.space not in ((), size := tuple(x.shape[2:])):
            raise ShapeError(
                f"a convolution pads by the size of its input, which is {size} after {self.space}: "
                "give batches of one size"
            )
        widths = [w for pair in reversed(self.padding) for w in pair]
        if not any(widths):
            return x
        if self.padding_mode == "zeros":
            return pad(x, widths, value=value)
        return pad(x, widths, mode=_PAD_MODES[self.padding_mode])

    def patches(self, x: Tensor) -> Tensor:
        """Return every window's content, shape `(batch, channels * taps, positions)`.

        Features are ordered as a weight row is: channel first, then taps.
        """
        views = self.padded(x)
        axes = len(self.kernel)
        for axis in range(axes):
            views = self._windows(views, axis)
        # (batch, channels, *positions, *kernel) -> (batch, channels, *kernel, *positions)
        order = [0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes)]
        views = views.permute(order)
        positions = prod(views.shape[2 + axes :])
        return views.reshape(x.shape[0], x.shape[1] * self.taps, positions)

    def places(self, space: Sequence[int]) -> list[int]:
        """Return how many windows fit on each axis of maps of this size, padding included."""
        sizes = []
        for axis, size in enumerate(space):
            span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            sizes.append((size + sum(self.padding[axis]) - span) // self.stride[axis] + 1)
        return sizes

    def tap_sums(self, maps: Tensor) -> Tensor:
        """Return, for padded maps `(channels, *space)`, the sum seen by each tap.

        Shape `(channels * taps,)`, in the order of a weight row.
        """
        views = maps[None]
        axes = len(self.kernel)
        for axis in range(axes):
            views = self._windows(views, axis)
        return views.sum(tuple(range(2, 2 + axes))).flatten()

    def window_sums(self, maps: Tensor) -> Tensor:
        """Return, for padded maps `(channels, *space)`, the sum inside each window.

        Shape `(channels, positions)`.
        """
        views = maps[None]
        axes = len(self.kernel)
        for axis in range(axes):
            views = self._windows(views, axis)
        return views.sum(tuple(range(2 + axes, 2 + 2 * axes)))[0].flatten(1)

    def _windows(self, x: Tensor, axis: int) -> Tensor:
        span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        return x.unfold(2 + axis, span, self.stride[axis])[..., :: self.dilation[axis]]

    def outer(self, values: Tensor, x: Tensor, centre: Tensor) -> Tensor:
        """Return the sum over rows of value times patch minus centre, shape `(channels, width)`.

        This is a convolution's own weight gradient, so it needs no unfolding. `values` is
        `(batch, channels, *space)`, `x` the layer's input, `centre` `(input channels,)`.
        """
        axes = len(self.kernel)
        source = self.padded(x) - centre.view(-1, *[1] * axes)
        inputs = x.shape[1] // self.groups
        weight = values.new_empty((values.shape[1], inputs, *self.kernel))
        backward = torch.ops.aten.convolution_backward
        gradient = backward(
            values, source, weight, None, self.stride, [0] * axes, self.dilation,
            False, [0] * axes, self.groups, [False, True, False],
        )[1]  # fmt: skip
        product: Tensor = gradient.flatten(1)
        return product
