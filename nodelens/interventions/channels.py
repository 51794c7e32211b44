"""Which channels and heads to silence, as a user names them and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    ShapeError,
    nearest,
)
from nodelens.model.layers import Layer
from nodelens.model.loaded import check_loaded, check_not_fused, check_untied
from nodelens.model.wrapper import ModelWrapper

__all__ = [
    "VALUES",
    "Channels",
    "Condition",
    "Part",
    "Site",
    "Value",
    "as_condition",
    "channel_indices",
    "head_indices",
    "known_layers",
    "parts_of",
]

Channels = Mapping[str, Any]
"""`{layer: numbers, or a bool mask with True to silence}`."""
Value = str | Mapping[str, Tensor]
Site = str | Mapping[str, str]
"""Where channels are silenced, "input" or "output"; or of each layer that is not at its output."""

VALUES = ("zero", "mean", "resample")


@dataclass(frozen=True)
class Condition:
    """One set of channels and heads to silence together, and what stands there instead.

    `heads` are `{attention output projection: head numbers or mask}`; a head is silenced where that
    layer takes it in. `weights` are `{layer: bool mask of the weight's shape, True to silence}`:
    the layer computes with zeros there. See `silenced_outputs` for the rest.
    """

    channels: Channels = field(default_factory=dict)
    heads: Channels = field(default_factory=dict)
    value: Value = "zero"
    site: Site = "output"
    seed: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.channels) or bool(self.heads) or bool(self.weights)

    @property
    def layers(self) -> list[str]:
        """Return the names of the layers that are silenced in part."""
        return list(dict.fromkeys([*self.channels, *self.heads, *self.weights]))

    def site_of(self, layer: str) -> str:
        """Return where a layer's channels are silenced, "input" or "output"."""
        return self.site if isinstance(self.site, str) else self.site.get(layer, "output")


@dataclass(frozen=True)
class Part:
    """Channels of one layer at one site, by number; `fill` holds a value for each, or is None.

    At the site "weight" `fill` is the mask of single weights instead, True to silence.
    """

    layer: Layer
    site: str
    indices: Tensor
    fill: Tensor | None = None


def as_condition(
    channels: Channels | Condition | None,
    *,
    heads: Channels | None = None,
    value: Value = "zero",
    site: Site = "output",
    seed: int = 0,
) -> Condition:
    """Return the condition that the arguments make; one that is made already stays as it is."""
    if isinstance(channels, Condition):
        return channels
    return Condition(channels or {}, heads or {}, value, site, seed)


def parts_of(wrapper: ModelWrapper, condition: Condition) -> list[Part]:
    """Return what a condition silences, a part a layer.

    Raises InvalidValueError, LayerNotFoundError and ShapeError for what cannot be silenced.
    """
    _check(condition)
    check_loaded(wrapper.module)
    found: dict[str, Part] = {}
    for name in known_layers(wrapper, condition.channels):
        layer, site = wrapper.layers[name], condition.site_of(name)
        width = layer.channels if site == "output" else layer.inputs
        indices = channel_indices(condition.channels[name], width, name)
        found[name] = Part(layer, site, indices)
    for name in known_layers(wrapper, condition.heads):
        indices = head_indices(condition.heads[name], wrapper.layers[name], wrapper)
        if (known := found.get(name)) is not None:
            if known.site != "input":
                raise InvalidValueError(
                    f"layer {name!r} has heads to silence, at its input, and channels at its "
                    "output: silence one of the two, or both at site='input'"
                )
            indices = torch.cat([known.indices, indices]).unique()
        found[name] = Part(wrapper.layers[name], "input", indices)
    weights = [_of_weights(wrapper, n, condition) for n in known_layers(wrapper, condition.weights)]
    return [*(_filled(part, condition.value) for part in found.values()), *weights]


def known_layers(wrapper: ModelWrapper, channels: Channels) -> list[str]:
    """Return the names of the layers to silence; LayerNotFoundError when one has no channels."""
    for name in channels:
        if name not in wrapper.layers:
            check_not_fused(wrapper.module, name)
            raise LayerNotFoundError(
                f"no layer {name!r} to silence{nearest(name, wrapper.layers)}; "
                f"the layers are {', '.join(list(wrapper.layers)[:12])}"
            )
    return list(channels)


def channel_indices(
    chosen: Sequence[int] | Tensor, width: int, layer: str, what: str = "channel"
) -> Tensor:
    """Return channel numbers from numbers or from a bool mask, True meaning chosen.

    Raises ShapeError for a mask of another width, InvalidValueError for numbers out of range.
    """
    try:
        given = torch.as_tensor(chosen)
    except (RuntimeError, TypeError, ValueError) as fault:
        raise InvalidValueError(
            f"layer {layer!r}: {chosen!r} are no {what} numbers and no mask: {fault}"
        ) from fault
    if given.dtype == torch.bool:
        if given.shape != (width,):
            raise ShapeError(
                f"layer {layer!r}: a mask of shape {tuple(given.shape)} for {width} {what}s"
            )
        return given.nonzero().flatten()
    if given.is_floating_point() and given.numel():
        raise InvalidValueError(f"layer {layer!r}: {what} numbers are whole, got {given.dtype}")
    indices = given.long().flatten()
    outside = indices[(indices < -width) | (indices >= width)]
    if len(outside):
        raise InvalidValueError(
            f"layer {layer!r} has {width} {what}s, there is no {what} {int(outside[0])}"
        )
    return indices % width


def head_indices(chosen: Sequence[int] | Tensor, layer: Layer, wrapper: ModelWrapper) -> Tensor:
    """Return the input channels of an attention's output projection that its heads fill.

    Raises InvalidValueError for a layer that takes in no heads.
    """
    if not layer.heads:
        others = [name for name, known in wrapper.layers.items() if known.heads]
        raise InvalidValueError(
            f"layer {layer.name!r} takes in no heads{nearest(layer.name, others)}; "
            f"the output projections are {', '.join(others[:12]) or 'none'}"
        )
    heads = channel_indices(chosen, layer.heads, layer.name, "head")
    size = layer.inputs // layer.heads
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def _of_weights(wrapper: ModelWrapper, name: str, condition: Condition) -> Part:
    mask, module = condition.weights[name], wrapper.torch_module(name)
    if name in condition.channels or name in condition.heads:
        raise InvalidValueError(
            f"layer {name!r} has single weights to silence, and channels or heads: name one of them"
        )
    if "weight" not in module._parameters:
        raise IncompatibleModelError(
            f"layer {name!r} has a parametrized weight, whose entries cannot be silenced: remove "
            "the parametrization first"
        )
    shape = tuple(module._parameters["weight"].shape)  # type: ignore[union-attr]
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
        given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask)
        raise ShapeError(
            f"layer {name!r}: a mask of weights is {given}, expected bool of the weight's {shape}"
        )
    check_untied(wrapper.module, [name])
    return Part(wrapper.layers[name], "weight", torch.empty(0, dtype=torch.long), mask)


def _check(condition: Condition) -> None:
    value = condition.value
    for site in {condition.site_of(name) for name in [*condition.channels, ""]}:
        if site not in ("input", "output"):
            raise InvalidValueError(f"site is {site!r}, expected 'input' or 'output'")
    if isinstance(value, str) and value not in VALUES:
        raise InvalidValueError(
            f"value is {value!r}{nearest(value, VALUES)}, expected one of "
            f"{', '.join(map(repr, VALUES))} or {{layer: tensor of values}}"
        )


def _filled(part: Part, value: Value) -> Part:
    if isinstance(value, str):
        return part
    name = part.layer.name
    width = part.layer.channels if part.site == "output" else part.layer.inputs
    if name not in value:
        raise InvalidValueError(f"no values to put into layer {name!r}; there are {list(value)}")
    if value[name].shape != (width,):
        raise ShapeError(
            f"layer {name!r}: values of shape {tuple(value[name].shape)} for {width} channels"
        )
    return replace(part, fill=value[name][part.indices.to(value[name].device)])
