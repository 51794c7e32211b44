"""Measuring reads inside a trace: every site reduced the moment the model reaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import ShapeError
from nodelens.model.layers import Layer, canonical, check_finite, first_tensor
from nodelens.model.loss import Prediction
from nodelens.model.route import Route
from nodelens.model.rows import counted_rows
from nodelens.model.samples import Samples
from nodelens.model.session import full_precision
from nodelens.model.views import viewed_weights
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics import Sample, Statistic
from nodelens.statistics.read import Read, joined_reads

__all__ = [
    "Gathering",
    "Stops",
    "check_kept",
    "gather",
    "measure_gradients",
    "plan_reads",
    "replaced",
]

Measured = dict[str, dict[Any, Statistic]]
"""`{layer name: {read or name: statistic}}`, the layer's description under "layer"."""


@dataclass(frozen=True)
class Visit:
    """One stop of a pass: a layer's input or output on one of its calls, and what to read there."""

    layer: Layer
    site: str
    number: int
    reads: tuple[Read, ...]

    @property
    def needs_gradient(self) -> bool:
        """Return whether a read here wants the loss gradient."""
        return any("gradient" in read.statistic.needs for read in self.reads)


@dataclass(frozen=True)
class Stops:
    """Every stop of a pass in forward order, and the constants, which need no pass."""

    visits: tuple[Visit, ...]
    constants: Mapping[str, Mapping[Any, Statistic]]
    inputs_for_outputs: frozenset[str]

    @property
    def gradients(self) -> bool:
        """Return whether the pass needs a loss and its gradient."""
        return any(visit.needs_gradient for visit in self.visits)


@dataclass
class Gathering:
    """What one pass has brought: statistics, and tensors kept until their gradient is known."""

    measured: Measured
    kept: list[tuple[Visit, Tensor, Tensor | None]] = field(default_factory=list)
    outputs: Any = None


def plan_reads(
    wrapper: ModelWrapper,
    route: Route,
    reads: Mapping[str, Sequence[Read]],
    layers: Sequence[Layer],
) -> Stops:
    """Return the stops of a pass: equal reads once, sites in the order the model reaches them."""
    visits: list[Visit] = []
    constants: dict[str, dict[Any, Statistic]] = {}
    for layer in layers:
        wanted = joined_reads(reads[layer.name])
        constants[layer.name] = {"layer": layer}
        for read in (r for r in wanted if r.site == "weight"):
            constants[layer.name][read] = _weight_statistic(wrapper, layer, read)
        for site in ("input", "output"):
            here = tuple(r for r in wanted if r.site == site)
            if here:
                calls = range(route.visits[layer.name])
                visits += [Visit(layer, site, number, here) for number in calls]
    visits.sort(key=lambda v: route.events[(v.layer.name, v.number, v.site)])
    both = {v.layer.name for v in visits for r in v.reads if "input" in r.statistic.needs}
    return Stops(tuple(visits), constants, frozenset(both))


def _weight_statistic(wrapper: ModelWrapper, layer: Layer, read: Read) -> Statistic:
    module = wrapper.torch_module(layer.name)
    rows = viewed_weights(read.view, layer, module, wrapper.reference_weight(layer))
    check_finite(rows, layer.name, "weight")
    return read.statistic.measure(Sample(rows, window=layer.window), **dict(read.options))


def gather(wrapper: ModelWrapper, batch: Batch, stops: Stops) -> Gathering:
    """Return what a pass shows; runs inside a trace, in forward order."""
    gathering = Gathering({name: dict(found) for name, found in stops.constants.items()})
    inputs: dict[str, Tensor] = {}
    for visit in stops.visits:
        layer, name = visit.layer, visit.layer.name
        with wrapper.visit(visit.number):
            envoy = wrapper.envoy(name)
            if visit.site == "output" and name in stops.inputs_for_outputs:
                inputs[name] = canonical(envoy.input, layer, "input", batch.axes()).detach()
            raw = envoy.input if visit.site == "input" else envoy.output
            if visit.needs_gradient:
                raw = _kept(raw, envoy, visit.site)
        values = canonical(raw, layer, visit.site, batch.axes())
        source = inputs.pop(name, None)
        if visit.needs_gradient:
            gathering.kept.append((visit, raw, source))
        with torch.no_grad(), full_precision(values.device):
            samples = Samples(wrapper, batch, layer, values.detach(), source=source)
            _measure(gathering, visit, samples)
    if stops.gradients:
        gathering.outputs = wrapper.nnsight.output
    return gathering


def _kept(raw: Any, envoy: Any, site: str) -> Tensor:
    """A tensor to differentiate by, safe from what the model does to its own copy in place."""
    tensor = first_tensor(raw)
    if tensor is None:
        raise ShapeError(f"{type(raw).__name__} holds no tensor to take a gradient at")
    if site == "input":
        # A copy is what the layer reads: the gradient is that through this layer alone.
        here = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
        envoy.input = here
        return here
    here = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
    envoy.output = replaced(raw, here.clone())
    return here


def replaced(raw: Any, tensor: Tensor) -> Any:
    """Return a module's input or output with its first tensor exchanged."""
    if isinstance(raw, Tensor):
        return tensor
    if isinstance(raw, dict):
        values = iter([tensor])
        return {k: next(values, v) if isinstance(v, Tensor) else v for k, v in raw.items()}
    parts = list(raw)
    at = next(i for i, part in enumerate(parts) if first_tensor(part) is not None)
    parts[at] = replaced(parts[at], tensor)
    return type(raw)(*parts) if hasattr(raw, "_fields") else type(raw)(parts)


def measure_gradients(
    gathering: Gathering, wrapper: ModelWrapper, batch: Batch, prediction: Prediction
) -> None:
    """Differentiate the loss by every kept tensor and measure what needed the gradient."""
    kept, gathering.kept, gathering.outputs = gathering.kept, [], None
    tensors = [tensor for _, tensor, _ in kept]
    with full_precision(prediction.loss.device):
        gradients = torch.autograd.grad(prediction.loss, tensors, materialize_grads=True)
    with torch.no_grad(), full_precision(prediction.loss.device):
        for (visit, tensor, source), gradient in zip(kept, gradients, strict=True):
            values = canonical(tensor.detach(), visit.layer, visit.site, batch.axes())
            slope = canonical(gradient, visit.layer, visit.site, batch.axes())
            check_finite(slope, visit.layer.name, f"{visit.site}'s gradient")
            samples = Samples(
                wrapper,
                batch,
                visit.layer,
                values,
                gradient=slope,
                source=source,
                terms=prediction.terms,
            )
            _measure(gathering, visit, samples)


def check_kept(gathering: Gathering, batch: Batch) -> None:
    """Raise NonFiniteError at the first kept tensor that is not finite: where a bad loss began."""
    for visit, tensor, _ in gathering.kept:
        values = canonical(tensor.detach(), visit.layer, visit.site, batch.axes())
        counted = counted_rows(values, batch, visit.layer)
        check_finite(values if counted is None else values[counted], visit.layer.name, visit.site)


def _measure(gathering: Gathering, visit: Visit, samples: Samples) -> None:
    """Measure those reads of a visit that need a gradient, or those that need none."""
    given = samples.gradient is not None
    reads = [r for r in visit.reads if ("gradient" in r.statistic.needs) == given]
    found = gathering.measured[visit.layer.name]
    for read, statistic in samples.measured(reads, visit.site):
        if read in found:
            found[read] = found[read].widened()
            found[read].merge(statistic)
        else:
            found[read] = statistic
