"""Which parameters belong to a channel, and how numbers by channel lie over them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from nodelens.errors import ShapeError
from nodelens.model import ModelWrapper
from nodelens.model.layers import is_transposed_linear
from nodelens.pruning.units import site_of, units_of

__all__ = ["reached"]

Reach = Iterator[tuple[nn.Parameter, Tensor]]


def reached(model: ModelWrapper, name: str, values: Tensor) -> Reach:
    """Yield every parameter of a layer's channels with `values`, shaped to broadcast over it.

    `values` are `(channels,)`: a channel's are its weight row, its bias, and the scale and bias of
    the BatchNorm that follows. Under an FFN's down projection they may be `(units,)`: rows in gate
    and up with their biases, and columns in down. Or they have the weight's own shape.

    Raises ShapeError for values of any other shape.
    """
    module = model.torch_module(name)
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    if values.ndim > 1:
        if values.shape != weight.shape:
            raise ShapeError(
                f"layer {name!r}: a mask of shape {tuple(values.shape)}, expected the weight's "
                f"{tuple(weight.shape)} or one entry a channel"
            )
        yield weight, values
    elif site_of(model, name, values.numel()) == "input":
        for feeder in units_of(model, name).feeders:
            yield from _rows(model.torch_module(feeder), values)
        yield weight, values[:, None] if is_transposed_linear(module) else values
    else:
        yield from _rows(module, values)
        route = model.known_route()
        norm = None if route is None else route.norm_after.get(name)
        if norm is not None:
            yield from _own(model.torch_module(norm), values)


def _rows(module: nn.Module, values: Tensor) -> Reach:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, nn.Parameter)
    rest = [1] * (weight.ndim - 1)
    yield weight, values if is_transposed_linear(module) else values.view(-1, *rest)
    if isinstance(bias, nn.Parameter):
        yield bias, values


def _own(norm: nn.Module, values: Tensor) -> Reach:
    for parameter in (norm.weight, norm.bias):
        if isinstance(parameter, nn.Parameter):
            yield parameter, values
