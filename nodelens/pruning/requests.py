"""What masks ask to remove, read and checked before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    LayerNotReachedError,
    ShapeError,
    nearest,
)
from nodelens.model import ModelWrapper
from nodelens.model.attention import attention_parts
from nodelens.model.layers import Layer
from nodelens.model.loaded import check_not_fused
from nodelens.model.route import Route
from nodelens.pruning.masks import check_mask

__all__ = ["Request", "read_masks"]


@dataclass(frozen=True)
class Request:
    """A layer, what of it is to go, and the numbers of that, in ascending order.

    `kind` is "channels" (outputs of the layer), "units" (of an FFN: inputs of its down projection)
    or "heads" (whole key-value groups of attention, under its output projection; `removed` counts
    groups).
    """

    layer: Layer
    kind: str
    removed: tuple[int, ...]


def read_masks(
    wrapper: ModelWrapper, route: Route, masks: Mapping[str, Tensor]
) -> dict[str, Request]:
    """Return a request a mask; every error names the layer and what was expected.

    Raises LayerNotFoundError, LayerNotReachedError, ShapeError and InvalidValueError for a wrong
    name or mask, IncompatibleModelError for a layer that cannot be cut by its own.
    """
    if not masks:
        raise InvalidValueError("no masks were given, expected {layer name: bool tensor}")
    attention = _attention_layers(wrapper)
    return {name: _read(wrapper, route, name, mask, attention) for name, mask in masks.items()}


def _read(
    wrapper: ModelWrapper, route: Route, name: str, mask: Tensor, attention: Mapping[str, str]
) -> Request:
    layer = _known_layer(wrapper, name)
    if not route.reached(name):
        raise LayerNotReachedError(f"layer {name!r}: the example batch never reaches it")
    check_mask(name, mask)
    if name in attention:
        raise IncompatibleModelError(
            f"layer {name!r} belongs to attention, which is cut by whole key-value groups: give "
            f"the mask under {attention[name]!r}, one entry a key-value group"
        )
    if layer.heads:
        return _heads(layer, mask)
    kind = "units" if name in route.down_projections else "channels"
    feeds_ffn = route.followers.get(name) in route.down_projections
    if attention and kind == "channels" and not feeds_ffn:
        raise IncompatibleModelError(
            f"layer {name!r}: of a model with attention only units of FFNs and key-value groups "
            "can be removed, and this layer makes neither"
        )
    width, of = (layer.inputs, "units") if kind == "units" else (layer.channels, "channels")
    if mask.shape != (width,):
        raise ShapeError(
            f"layer {name!r}: a mask of shape {tuple(mask.shape)}, expected ({width},): "
            f"one entry for each of its {width} {of}"
        )
    return Request(layer, kind, _removed(mask))


def _known_layer(wrapper: ModelWrapper, name: str) -> Layer:
    if name in wrapper.layers:
        return wrapper.layers[name]
    check_not_fused(wrapper.module, name)
    raise LayerNotFoundError(
        f"no layer {name!r} to shrink{nearest(name, wrapper.layers)}; "
        f"the layers are {', '.join(list(wrapper.layers)[:12])}"
    )


def _heads(layer: Layer, mask: Tensor) -> Request:
    shared, heads = layer.key_value_heads, layer.heads
    if mask.shape not in ((shared,), (heads,)):
        raise ShapeError(
            f"layer {layer.name!r}: a mask of shape {tuple(mask.shape)}, expected ({shared},), one "
            f"entry a key-value group, or ({heads},), one a head"
        )
    groups = mask.view(shared, -1)
    mixed = (groups.any(1) & ~groups.all(1)).nonzero().flatten().tolist()
    if mixed:
        raise InvalidValueError(
            f"layer {layer.name!r}: the heads of key-value group {mixed[0]} are kept in part; "
            f"its {heads // shared} heads share keys and values and go together"
        )
    return Request(layer, "heads", _removed(groups.all(1)))


def _removed(mask: Tensor) -> tuple[int, ...]:
    return tuple((~mask).nonzero().flatten().tolist())


def _attention_layers(wrapper: ModelWrapper) -> dict[str, str]:
    """The layers that make queries, keys and values, each with its output projection."""
    found = {}
    for name, layer in wrapper.layers.items():
        parts = attention_parts(wrapper.layers, name) if layer.heads else None
        found.update(dict.fromkeys(parts.names if parts else (), name))
    return found
