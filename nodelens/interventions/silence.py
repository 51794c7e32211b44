"""Silencing channels inside a trace; no weight is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nodelens.data import Batch
from nodelens.errors import LayerNotReachedError, NodeLensError
from nodelens.interventions.channels import (
    Channels,
    Condition,
    Part,
    Site,
    Value,
    as_condition,
    known_layers,
    parts_of,
)
from nodelens.interventions.values import silent, without_weights
from nodelens.model.route import Route
from nodelens.model.selection import in_forward_order
from nodelens.model.wrapper import ModelWrapper

__all__ = ["Change", "edited_outputs", "numbered", "silenced_outputs", "silencing"]

Change = Callable[[Any, Part], Any]


def silenced_outputs(
    wrapper: ModelWrapper,
    batch: Batch,
    channels: Channels | Condition,
    *,
    value: Value = "zero",
    site: Site = "output",
    heads: Channels | None = None,
    seed: int = 0,
) -> Any:
    """Return the model's output for a batch with channels silenced, in one trace.

    `value` is what stands there instead: "zero"; "mean", the channel's mean over the rows of this
    batch; "resample", the values of other rows of this batch (for maps, of other samples), chosen
    by `seed`; or `{layer: (channels,)}`, such as the `means` of a whole stream. With `site="input"`
    what the layer takes in is silenced, as for the units of an FFN at its down projection;
    `{layer: site}` says it of each layer that is not silenced at its output. `heads` are
    `{attention output projection: head numbers}`. A layer that feeds a BatchNorm is silenced behind
    it, where it would otherwise still emit the norm's bias. Every call of a layer is
    silenced, with "mean" each by its own.
    """
    condition = as_condition(channels, heads=heads, value=value, site=site, seed=seed)
    if not condition:
        return wrapper.forward(batch)

    def change(raw: Any, part: Part) -> Any:
        return silent(raw, part, condition, batch)

    return edited_outputs(wrapper, batch, parts_of(wrapper, condition), change)


def edited_outputs(
    wrapper: ModelWrapper,
    batch: Batch,
    parts: Sequence[Part],
    change: Change,
    before: Callable[[], object] = lambda: None,
) -> Any:
    """Return the model's output for a batch with `change(raw, part)` in the place of every part.

    `raw` is what the part's layer, or the BatchNorm behind it, takes in or gives. `before` is
    called ahead of each try: there are two where the batch takes another way through the model.
    """
    watched = [part.layer.name for part in parts]

    def once(route: Route) -> Any:
        before()
        return wrapper.trace(batch, [_body(wrapper, route, parts, change)], watched=watched)[0]

    route = wrapper.route(batch)
    try:
        return once(route)
    except LayerNotReachedError:
        # The model may take another way with this batch than with the one the route is from.
        if (other := wrapper.route(batch, again=True)) == route:
            raise
        return once(other)


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Name the batch in the errors that come of it."""
    try:
        yield
    except NodeLensError as error:
        error.within(f"batch {number}")
        raise


def silencing(
    wrapper: ModelWrapper,
    route: Route,
    channels: Channels | Condition,
    *,
    value: Value = "zero",
    site: Site = "output",
    heads: Channels | None = None,
    seed: int = 0,
    batch: Batch | None = None,
) -> Callable[[], Any]:
    """Return the trace body that silences `channels` and returns the model's output.

    `batch` tells padding apart, for the values "mean" and "resample".
    """
    condition = as_condition(channels, heads=heads, value=value, site=site, seed=seed)
    parts, given = parts_of(wrapper, condition), batch or Batch()
    return _body(wrapper, route, parts, lambda raw, part: silent(raw, part, condition, given))


def _body(
    wrapper: ModelWrapper, route: Route, parts: Sequence[Part], change: Change
) -> Callable[[], Any]:
    by_name = {part.layer.name: part for part in parts}
    edits = []
    for name in in_forward_order(wrapper, route, known_layers(wrapper, by_name)):
        part = by_name[name]
        target = route.norm_after.get(name, name) if part.site == "output" else name
        event = "input" if part.site == "input" else "output"
        for n in range(route.visits[target]):
            edits.append((route.events[(target, n, event)], n, target, part))
    edits.sort(key=lambda edit: edit[0])

    def body() -> Any:
        for _, number, target, part in edits:
            with wrapper.visit(number):
                envoy = wrapper.envoy(target)
                if part.site == "input":
                    envoy.input = change(envoy.input, part)
                elif part.site == "weight":
                    envoy.output = without_weights(wrapper.torch_module(target), part, envoy.input)
                else:
                    envoy.output = change(envoy.output, part)
        return wrapper.nnsight.output

    return body
