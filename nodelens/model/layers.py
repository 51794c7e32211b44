"""Layers that have channels to score: their weight rows, channel axis and rows per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from nodelens.errors import MergeError, NonFiniteError, ShapeError
from nodelens.statistics import Constant, Sample, Statistic, Window

__all__ = [
    "CONVOLUTIONS",
    "Layer",
    "at_least_float32",
    "canonical",
    "check_finite",
    "describe",
    "first_tensor",
    "named",
    "weight_rows",
]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)


@dataclass(frozen=True)
class Layer(Constant):
    """What a lens may know of a layer; equal in every batch, so it is kept as a constant.

    `channels` is the number of output channels, `inputs` of input channels, `width` the length of
    a weight row. `window` is there for convolutions. `in_ffn` marks an FFN's down projection,
    `scaled` a layer that a BatchNorm with a scale follows: both are known once a pass was seen.
    `heads` is how many heads an attention's output projection takes in, side by side, and
    `key_value_heads` how many keys and values these share; 0 for any other layer.
    """

    name: str
    channels: int
    inputs: int
    width: int
    window: Window | None = None
    in_ffn: bool = False
    heads: int = 0
    key_value_heads: int = 0
    scaled: bool = False

    @property
    def is_convolution(self) -> bool:
        """Return whether the layer slides a window over maps."""
        return self.window is not None

    @property
    def groups(self) -> int:
        """Return how many groups the channels fall into, each with inputs of its own."""
        return 1 if self.window is None else self.window.groups

    @classmethod
    def measure(cls, sample: Sample, *args: Any, **kwargs: Any) -> Self:
        raise TypeError("a layer is described from its module, not measured")

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        mine, theirs = self.window, getattr(other, "window", None)
        if mine and theirs and mine.space != theirs.space:
            raise MergeError(
                f"layer {self.name!r} pads by the size of its maps, which is {theirs.space} after "
                f"{mine.space}: give batches of one size"
            )

    def plain(self) -> dict[str, Any]:
        fields = dict(vars(self))
        if self.window is not None:
            fields["window"] = dict(vars(self.window))
        return fields

    @classmethod
    def from_state(cls, state: Any, plain: Any) -> Self:
        fields = dict(plain)
        if isinstance(fields.get("window"), dict):
            fields["window"] = Window(**{k: _tuples(v) for k, v in fields["window"].items()})
        return cls(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def describe(name: str, module: nn.Module) -> Layer | None:
    """Return the description of a scorable module, None for any other."""
    if isinstance(module, nn.Linear):
        return Layer(name, module.out_features, module.in_features, module.in_features)
    if isinstance(module, CONVOLUTIONS):
        width = module.in_channels // module.groups * torch.Size(module.kernel_size).numel()
        return Layer(name, module.out_channels, module.in_channels, width, _window(module))
    if is_transposed_linear(module):
        weight = module.weight
        assert isinstance(weight, Tensor)
        inputs, outputs = weight.shape
        return Layer(name, outputs, inputs, inputs)
    return None


def named(module: nn.Module) -> dict[str, nn.Module]:
    """Return every module below this one by torch's name; a lone layer is called "model"."""
    if describe("model", module) is not None:
        return {"model": module}
    return {name: child for name, child in module.named_modules() if name}


def is_transposed_linear(module: nn.Module) -> bool:
    """Return whether this is the linear layer of GPT-2, whose weight is `(inputs, channels)`.

    Told by its name and home, so that transformers need not be imported to find out.
    """
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def _window(module: nn.Module) -> Window:
    assert isinstance(module, CONVOLUTIONS)
    # torch keeps the padding it will apply last axis first, also for "same" and "valid".
    flat: Sequence[int] = module._reversed_padding_repeated_twice
    for child in module.children():
        # A convolution that pads by itself, unequally, as TensorFlow's "same" does.
        if isinstance(child, _ZERO_PADS):
            flat = [own + more for own, more in zip(flat, child.padding, strict=True)]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    return Window(
        tuple(module.kernel_size),
        tuple(module.stride),
        tuple(module.dilation),
        tuple(pairs),
        module.groups,
        module.padding_mode,
    )


def weight_rows(module: nn.Module) -> Tensor:
    """Return the weight as one row a channel, shape `(channels, width)`, sharing its memory."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    rows = weight.detach()
    return rows.T if is_transposed_linear(module) else rows.flatten(1)


def first_tensor(value: Any) -> Tensor | None:
    """Return the tensor itself, or the first one in a tuple, list or mapping of outputs."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return next((found for v in value if (found := first_tensor(v)) is not None), None)
    return None


def canonical(value: Any, layer: Layer, site: str, axes: tuple[int, int] | None = None) -> Tensor:
    """Return what a layer takes or gives, channels on axis 1 and batch or rows on axis 0.

    `(rows, channels)` for linear layers, every leading axis being rows; `(batch, channels, *space)`
    for convolutions, with a batch of one put in front of a single map. `axes` are the batch's
    `(samples, tokens)`: rows of a model that works tokens first are brought in that order.
    """
    tensor = first_tensor(value)
    channels = layer.channels if site == "output" else layer.inputs
    if tensor is None:
        raise ShapeError(
            f"layer {layer.name!r} has no tensor as its {site}: {type(value).__name__}"
        )
    if layer.window is None:
        if axes is not None and tensor.ndim > 2 and axes[0] != axes[1]:
            tensor = tensor.transpose(0, 1) if tuple(tensor.shape[:2]) == axes[::-1] else tensor
        rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)
    else:
        space = len(layer.window.kernel)
        if tensor.ndim not in (space + 1, space + 2):
            raise ShapeError(
                f"the {site} of layer {layer.name!r} has shape {tuple(tensor.shape)}, "
                f"expected {space + 2} axes: batch, channels and {space} of space"
            )
        rows = tensor if tensor.ndim == space + 2 else tensor.unsqueeze(0)
    if rows.shape[1] != channels:
        raise ShapeError(
            f"the {site} of layer {layer.name!r} has shape {tuple(tensor.shape)}, "
            f"expected {channels} channels"
        )
    return at_least_float32(rows)


def at_least_float32(x: Tensor) -> Tensor:
    """Return the tensor, in float32 where it has half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_finite(values: Tensor, layer: str, site: str) -> None:
    """Raise NonFiniteError that counts the NaN and infinite entries, if there are any."""
    # The sum is NaN or infinite when an entry is, and costs one pass; only then are they counted.
    if not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all()):
        nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        raise NonFiniteError(
            f"layer {layer!r}: {nan} NaN and {infinite} infinite values among "
            f"{values.numel()} in its {site}"
        )
