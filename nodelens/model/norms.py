"""Which BatchNorm scales what a layer returns, known once a pass has shown the order."""

from __future__ import annotations

import weakref
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from nodelens.errors import InvalidValueError
from nodelens.model.layers import Layer

__all__ = ["norm_scale", "note_norm"]

_AFTER: WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = WeakKeyDictionary()


def note_norm(module: nn.Module, norm: nn.Module, layer: Layer) -> bool:
    """Note which norm follows a layer; return whether it has a scale of its own a channel."""
    scale = norm.weight
    if not isinstance(scale, Tensor) or scale.shape != (layer.channels,):
        return False
    _AFTER[module] = weakref.ref(norm)
    return True


def norm_scale(layer: Layer, module: nn.Module) -> Tensor:
    """Return the scale of the norm behind a layer as rows, `(channels, 1)`.

    Raises InvalidValueError for a layer that no norm is known to follow.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    if weight.is_meta and module not in _AFTER:
        return weight.new_ones((layer.channels, 1))  # a stand-in, to tell costs by
    norm = _AFTER[module]() if module in _AFTER else None
    if norm is None:
        raise InvalidValueError(f"layer {layer.name!r} is followed by no BatchNorm with a scale")
    scale = norm.weight
    assert isinstance(scale, Tensor)
    return scale.detach()[:, None]
