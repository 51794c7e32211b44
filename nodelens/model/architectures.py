"""Small networks that train in seconds, built by name; a seed gives the same weights every time."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, UnknownNameError, UnknownOptionError, nearest

__all__ = ["MLP", "SmallCNN", "architecture_names", "build_model"]

_ARCHITECTURES: dict[str, type[nn.Module]] = {}
_Architecture = TypeVar("_Architecture", bound=type[nn.Module])


def architecture_names() -> list[str]:
    """Return the names that :func:`build_model` knows, sorted.

    >>> architecture_names()
    ['mlp', 'small_cnn']
    """
    return sorted(_ARCHITECTURES)


def build_model(name: str, **options: Any) -> nn.Module:
    """Return a new network of the architecture `name`, weights drawn from its `seed` option.

    >>> model = build_model("mlp", shape=(4,), classes=2, hidden=[3], seed=1)
    >>> [name for name, module in model.named_children()]
    ['flatten', 'fc1', 'relu1', 'fc2']

    Raises:
        UnknownNameError: no such architecture.
        UnknownOptionError: an option that the architecture does not have.
        InvalidValueError: a width below one, or an input too small for the layers.
    """
    if name not in _ARCHITECTURES:
        raise UnknownNameError(
            f"no architecture {name!r}{nearest(name, _ARCHITECTURES)}; "
            f"there are {', '.join(architecture_names())}"
        )
    valid = list(inspect.signature(_ARCHITECTURES[name].__init__).parameters)[1:]
    for option in options:
        if option not in valid:
            raise UnknownOptionError(
                f"{name} has no option {option!r}{nearest(option, valid)}; "
                f"it has {', '.join(valid)}"
            )
    return _ARCHITECTURES[name](**options)


def _architecture(name: str) -> Callable[[_Architecture], _Architecture]:
    def register(cls: _Architecture) -> _Architecture:
        _ARCHITECTURES[name] = cls
        return cls

    return register


class _Chain(nn.Module):
    """Named layers one after the other. A slice of an `nn.Sequential` subclass would not build."""

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


@_architecture("mlp")
class MLP(_Chain):
    """Linear layers `fc1`, `fc2`, ... with ReLU between them; the last gives one logit a class."""

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        classes: int = 10,
        *,
        hidden: Sequence[int] = (64, 64),
        seed: int = 0,
    ) -> None:
        widths = _widths("hidden", hidden)
        generator = torch.Generator().manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        layers.update(_dense(prod(shape), widths, classes, generator))
        super().__init__(layers)


@_architecture("small_cnn")
class SmallCNN(_Chain):
    """Convolutions `conv1`, `conv2`, ... of 3 x 3, one 2 x 2 max pooling, then `fc1`, `fc2`, ..."""

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        classes: int = 10,
        *,
        channels: Sequence[int] = (16, 32),
        hidden: Sequence[int] = (64,),
        seed: int = 0,
    ) -> None:
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise InvalidValueError(
                f"small_cnn reads images of shape (channels, height, width) of at least 2 x 2,"
                f" not {tuple(shape)}"
            )
        generator = torch.Generator().manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = shape[0]
        for number, outputs in enumerate(_widths("channels", channels), start=1):
            convolution = nn.utils.skip_init(nn.Conv2d, inputs, outputs, kernel_size=3, padding=1)
            layers[f"conv{number}"] = _initialised(convolution, generator)
            layers[f"conv_relu{number}"] = nn.ReLU()
            inputs = outputs
        layers["pool"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        pixels = (shape[1] // 2) * (shape[2] // 2)
        layers.update(_dense(inputs * pixels, _widths("hidden", hidden), classes, generator))
        super().__init__(layers)


def _dense(
    inputs: int, hidden: Sequence[int], classes: int, generator: torch.Generator
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, outputs in enumerate([*hidden, classes], start=1):
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        layers[f"fc{number}"] = _initialised(linear, generator)
        if number <= len(hidden):
            layers[f"relu{number}"] = nn.ReLU()
        inputs = outputs
    return layers


def _initialised(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return `layer` with He weights and zero biases; torch's own way would use the global RNG."""
    assert isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is not None
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _widths(option: str, widths: Sequence[int]) -> list[int]:
    if isinstance(widths, (str, int)) or any(not isinstance(w, int) or w < 1 for w in widths):
        raise InvalidValueError(f"{option} is {widths!r}, expected a list of widths from 1 up")
    return list(widths)
