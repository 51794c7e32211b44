"""Which BatchNorm scales what a layer returns, known once a pass has shown the order."""

from __future__ import annotations

import weakref
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn.functional import batch_norm

from nodelens.errors import InvalidValueError
from nodelens.model.layers import Layer

__all__ = ["norm_scale", "normed", "note_norm"]

_AFTER: WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = WeakKeyDictionary()


def note_norm(module: nn.Module, norm: nn.Module, layer: Layer) -> bool:
    """Note which norm follows a layer; return whether it has a scale of its own a channel."""
    scale = norm.weight
    if not isinstance(scale, Tensor) or scale.shape != (layer.channels,):
        return False
    _AFTER[module] = weakref.ref(norm)
    return True


def normed(x: Tensor, module: nn.Module) -> Tensor:
    """Return maps as the BatchNorm behind a layer leaves them; as they are where none is known.

    With the running mean and variance of the norm, whatever mode the model is in; a norm without
    them uses those of the batch, as it always does.
    """
    norm = _AFTER[module]() if module in _AFTER else None
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return x
    mean, variance = norm.running_mean, norm.running_var
    kept = [None if t is None else t.detach().to(x.dtype) for t in (norm.weight, norm.bias)]
    if mean is None or variance is None:
        return batch_norm(x, None, None, kept[0], kept[1], training=True, eps=norm.eps)
    mean, variance = mean.to(x.dtype), variance.to(x.dtype)
    return batch_norm(x, mean, variance, kept[0], kept[1], training=False, eps=norm.eps)


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
