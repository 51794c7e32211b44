"""Silencing by plain hooks, for code that calls the model itself: generation, other evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from nodelens.data import Batch
from nodelens.errors import InvalidValueError
from nodelens.interventions.channels import (
    Channels,
    Condition,
    Part,
    Value,
    as_condition,
    parts_of,
)
from nodelens.interventions.values import silent, without_weights
from nodelens.model.wrapper import wrap

__all__ = ["silenced"]


@contextmanager
def silenced(
    model: Any,
    channels: Channels | Condition,
    *,
    heads: Channels | None = None,
    value: Value = "zero",
    site: str = "output",
    example: Any = None,
) -> Iterator[nn.Module]:
    """Hold channels silent in every call of the model, by whomever, and yield the torch module.

    No weight is written, and the hooks are gone afterwards, also after an error. `value` is "zero"
    or `{layer: (channels,)}`: which rows a mean or other rows would be of is not known here.
    `example` is a batch that shows which BatchNorm follows a layer; not needed where there is none
    or the model has run already.
    """
    wrapper = wrap(model)
    condition = as_condition(channels, heads=heads, value=value, site=site)
    if isinstance(condition.value, str) and condition.value != "zero":
        raise InvalidValueError(
            f"value is {condition.value!r}, and calls of the model itself do not show which rows "
            "count: expected 'zero' or {layer: tensor of values}, such as means(...)"
        )
    route = wrapper.known_route()
    if route is None and example is not None:
        route = wrapper.route(wrapper.prepare_batch(example))
    kind = nn.modules.batchnorm._BatchNorm
    if route is None and any(isinstance(m, kind) for m in wrapper.module.modules()):
        raise InvalidValueError(
            "the model has BatchNorms, behind which channels are silenced: give example=, a batch "
            "that shows which layer each follows"
        )
    norms = {} if route is None else route.norm_after
    with ExitStack() as stack:
        for part in parts_of(wrapper, condition):
            name = part.layer.name
            target = norms.get(name, name) if part.site == "output" else name
            handle = _hook(wrapper.torch_module(target), part, condition)
            stack.callback(handle.remove)
        yield wrapper.module


def _hook(module: nn.Module, part: Part, condition: Condition) -> Any:
    def after(module: nn.Module, args: Any, output: Any) -> Any:
        return silent(output, part, condition, Batch())

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return silent(args, part, condition, Batch()), kwargs
        return args, silent(kwargs, part, condition, Batch())

    def weighed(module: nn.Module, args: Any, output: Any) -> Any:
        return without_weights(module, part, *args)

    if part.site == "weight":
        return module.register_forward_hook(weighed)
    if part.site == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)
