"""Silencing channels inside a trace, and measuring a model under it; no weight is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import (
    InvalidValueError,
    LayerNotFoundError,
    LayerNotReachedError,
    NodeLensError,
    ShapeError,
    nearest,
)
from nodelens.model.gather import replaced
from nodelens.model.layers import Layer, first_tensor
from nodelens.model.loss import predict
from nodelens.model.route import Route
from nodelens.model.selection import in_forward_order
from nodelens.model.wrapper import ModelWrapper, wrap

__all__ = [
    "Evaluation",
    "channel_indices",
    "evaluate",
    "known_layers",
    "silenced_outputs",
    "silencing",
]

Channels = Mapping[str, Any]
Value = str | Mapping[str, Tensor]
Site = str | Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Mean loss a prediction, accuracy (None where there are no classes) and predictions seen."""

    loss: float
    accuracy: float | None
    rows: int


def evaluate(
    model: Any,
    batches: Iterable[Any],
    channels: Channels | None = None,
    *,
    value: Value = "zero",
    site: Site = "output",
    loss: Any = None,
) -> Evaluation:
    """Return loss and accuracy of a model over batches, with some channels silenced.

    `channels` is `{layer: channel numbers, or a bool mask with True to silence}`; see
    `silenced_outputs` for `value` and `site`. The model itself does not change.

    Raises InvalidValueError when there is nothing to predict.
    """
    wrapper = wrap(model)
    total, right, rows, classes = 0.0, 0, 0, True
    # A shuffled DataLoader draws from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        for number, given in enumerate(batches):
            try:
                batch = wrapper.prepare_batch(given)
                outputs = silenced_outputs(wrapper, batch, channels or {}, value=value, site=site)
                found = predict(outputs, batch, wrapper.module, loss)
            except NodeLensError as error:
                error.within(f"batch {number}")
                raise
            total += float(found.loss)
            rows += found.terms
            classes = classes and found.correct is not None
            right += int(found.correct.sum()) if found.correct is not None else 0
    if not rows:
        raise InvalidValueError("nothing was predicted, expected at least one batch with targets")
    return Evaluation(total / rows, right / rows if classes else None, rows)


def silenced_outputs(
    wrapper: ModelWrapper,
    batch: Batch,
    channels: Channels,
    *,
    value: Value = "zero",
    site: Site = "output",
) -> Any:
    """Return the model's output for a batch with channels silenced, in one trace.

    `value` is "zero", or `{layer: (channels,)}` with what to put there instead. With
    `site="input"` what the layer takes in is silenced, as for the units of an FFN at its down
    projection; `{layer: site}` says it of each. A layer that feeds a BatchNorm is silenced behind
    it, where it would otherwise still emit the norm's bias. Every call of a layer is silenced.
    """
    if not channels:
        return wrapper.forward(batch)
    options: Any = {"value": value, "site": site}
    route = wrapper.route(batch)
    try:
        body = silencing(wrapper, route, channels, **options)
        return wrapper.trace(batch, [body], watched=channels)[0]
    except LayerNotReachedError:
        # The model may take another way with this batch than with the one the route is from.
        if (other := wrapper.route(batch, again=True)) == route:
            raise
        body = silencing(wrapper, other, channels, **options)
        return wrapper.trace(batch, [body], watched=channels)[0]


def silencing(
    wrapper: ModelWrapper,
    route: Route,
    channels: Channels,
    *,
    value: Value = "zero",
    site: Site = "output",
) -> Callable[[], Any]:
    """Return the trace body that silences `channels` and returns the model's output."""
    edits = []
    for name in in_forward_order(wrapper, route, known_layers(wrapper, channels)):
        layer, at = wrapper.layers[name], _site(site, name)
        width = layer.channels if at == "output" else layer.inputs
        indices = channel_indices(channels[name], width, name).to(wrapper.device)
        fill = _fill(value, name, indices, width)
        target = route.norm_after.get(name, name) if at == "output" else name
        edits += [
            (route.events[(target, n, at)], n, target, at, layer, indices, fill)
            for n in range(route.visits[target])
        ]
    edits.sort(key=lambda edit: edit[0])

    def body() -> Any:
        for _, number, target, at, layer, indices, fill in edits:
            with wrapper.visit(number):
                envoy = wrapper.envoy(target)
                if at == "input":
                    envoy.input = _silent(envoy.input, layer, indices, fill)
                else:
                    envoy.output = _silent(envoy.output, layer, indices, fill)
        return wrapper.nnsight.output

    return body


def known_layers(wrapper: ModelWrapper, channels: Channels) -> list[str]:
    """Return the names of the layers to silence; LayerNotFoundError when one has no channels."""
    for name in channels:
        if name not in wrapper.layers:
            raise LayerNotFoundError(
                f"no layer {name!r} to silence{nearest(name, wrapper.layers)}; "
                f"the layers are {', '.join(list(wrapper.layers)[:12])}"
            )
    return list(channels)


def channel_indices(chosen: Sequence[int] | Tensor, width: int, layer: str) -> Tensor:
    """Return channel numbers from numbers or from a bool mask, True meaning chosen.

    Raises ShapeError for a mask of another width, InvalidValueError for numbers out of range.
    """
    given = torch.as_tensor(chosen)
    if given.dtype == torch.bool:
        if given.shape != (width,):
            raise ShapeError(
                f"layer {layer!r}: a mask of shape {tuple(given.shape)} for {width} channels"
            )
        return given.nonzero().flatten()
    if given.is_floating_point() and given.numel():
        raise InvalidValueError(f"layer {layer!r}: channel numbers are whole, got {given.dtype}")
    indices = given.long().flatten()
    outside = indices[(indices < -width) | (indices >= width)]
    if len(outside):
        raise InvalidValueError(
            f"layer {layer!r} has {width} channels, there is no channel {int(outside[0])}"
        )
    return indices % width


def _site(site: Site, name: str) -> str:
    at = site if isinstance(site, str) else site.get(name, "output")
    if at not in ("input", "output"):
        raise InvalidValueError(f"site is {at!r}, expected 'input' or 'output'")
    return at


def _fill(value: Value, name: str, indices: Tensor, width: int) -> Tensor | None:
    if isinstance(value, str):
        if value != "zero":
            raise InvalidValueError(
                f"value is {value!r}, expected 'zero' or a tensor of values for every layer"
            )
        return None
    if name not in value:
        raise InvalidValueError(f"no values to put into layer {name!r}; there are {list(value)}")
    if value[name].shape != (width,):
        raise ShapeError(
            f"layer {name!r}: values of shape {tuple(value[name].shape)} for {width} channels"
        )
    return value[name].to(indices.device)[indices]


def _silent(raw: Any, layer: Layer, indices: Tensor, fill: Tensor | None) -> Any:
    tensor = first_tensor(raw)
    if tensor is None:
        raise ShapeError(f"layer {layer.name!r} has no tensor to silence: {type(raw).__name__}")
    axis = -1
    if layer.window is not None:
        axis = tensor.ndim - len(layer.window.kernel) - 1
    if fill is None:
        return replaced(raw, tensor.index_fill(axis, indices, 0))
    shape = [1] * tensor.ndim
    shape[axis] = len(indices)
    size = list(tensor.shape)
    size[axis] = len(indices)
    source = fill.to(tensor.dtype).view(shape).expand(size)
    return replaced(raw, tensor.index_copy(axis, indices, source))
