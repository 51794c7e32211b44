"""Measuring reads inside a trace: every site reduced as soon as what its reads need is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from nodelens.data import Batch
from nodelens.errors import IncompatibleModelError, InvalidValueError, ShapeError
from nodelens.model.layers import Layer, canonical, check_finite, first_tensor
from nodelens.model.logits import Logits
from nodelens.model.loss import Prediction
from nodelens.model.route import Route
from nodelens.model.rows import counted_rows, paired_rows
from nodelens.model.samples import Beside, Samples
from nodelens.model.session import full_precision
from nodelens.model.views import viewed_weights
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics import Sample, Statistic
from nodelens.statistics.read import Read, joined_reads

__all__ = [
    "GRADIENT",
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

Awaited = str | tuple[str, str]
"""What a read waits for: one of the three below, or another layer's site as (name, site)."""

NOTHING, OUTPUTS, GRADIENT = "", "outputs", "gradient"


@dataclass(frozen=True)
class Visit:
    """One stop of a pass: a layer's input or output on one of its calls, and what to read there.

    `reads` are grouped by what they wait for. `device` is that of the layer's weights, where all it
    shows is measured: a model spread over devices may hand it an input on another. None is where
    it comes.
    """

    layer: Layer
    site: str
    number: int
    reads: Mapping[Awaited, tuple[Read, ...]]
    device: torch.device | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Return the layer's name and the site: what reads of another layer wait for."""
        return self.layer.name, self.site

    def canonical(self, raw: Any, site: str, batch: Batch) -> Tensor:
        """Return what a site of the layer shows with channels on axis 1, on the layer's device."""
        shown = canonical(raw, self.layer, site, batch.axes())
        return shown if self.device is None else shown.to(self.device)


@dataclass(frozen=True)
class Stops:
    """Every stop of a pass in forward order, and the constants, which need no pass."""

    visits: tuple[Visit, ...]
    constants: Mapping[str, Mapping[Any, Statistic]]
    inputs_for_outputs: frozenset[str]

    @property
    def gradients(self) -> bool:
        """Return whether the pass needs a loss and its gradient."""
        return self.awaits(GRADIENT)

    def awaits(self, awaited: Awaited) -> bool:
        """Return whether some read waits for this."""
        return any(awaited in visit.reads for visit in self.visits)


@dataclass(frozen=True)
class Seen:
    """What a visit saw: a tensor that will not change, and the layer's input where one is needed.

    The tensor is as the model gave it; gradients are taken by it.
    """

    visit: Visit
    tensor: Tensor
    source: Tensor | None

    def canonical(self, batch: Batch, tensor: Tensor | None = None) -> Tensor:
        """Return the tensor, or one of its shape, with channels on axis 1."""
        shown = self.tensor.detach() if tensor is None else tensor
        return self.visit.canonical(shown, self.visit.site, batch)


@dataclass
class Gathering:
    """What one pass has brought: statistics, and what was seen by reads that still wait."""

    wrapper: ModelWrapper
    batch: Batch
    measured: Measured
    waiting: dict[Awaited, list[Seen]] = field(default_factory=dict)
    outputs: Any = None

    def arrive(self, seen: Seen) -> None:
        """Measure what waits for nothing, and what waited for this visit; keep the rest."""
        for awaited in seen.visit.reads:
            if awaited == NOTHING:
                self.measure(seen, NOTHING, seen.canonical(self.batch))
            else:
                self.waiting.setdefault(awaited, []).append(seen)
        for earlier in self.waiting.pop(seen.visit.place, []):
            mine, theirs = earlier.canonical(self.batch), seen.canonical(self.batch)
            mine, theirs = paired_rows(mine, theirs, self.batch, earlier.visit.layer)
            beside = Beside(seen.visit.layer.name, seen.visit.site, theirs)
            self.measure(earlier, seen.visit.place, mine, beside=beside)

    def end(self, outputs: Any) -> None:
        """Measure what waited for the model's outputs, which are kept for a gradient alone."""
        logits = Logits(outputs, self.batch, self.wrapper.module)
        for seen in self.waiting.pop(OUTPUTS, []):
            self.measure(seen, OUTPUTS, seen.canonical(self.batch), logits=logits)
        self.outputs = outputs if GRADIENT in self.waiting else None

    def measure(self, seen: Seen, awaited: Awaited, values: Tensor, **more: Any) -> None:
        """Measure those reads of a visit that waited for this, on canonical values."""
        visit = seen.visit
        with torch.no_grad(), full_precision(values.device):
            samples = Samples(
                self.wrapper, self.batch, visit.layer, values, source=seen.source, **more
            )
            found = self.measured[visit.layer.name]
            for read, statistic in samples.measured(list(visit.reads[awaited]), visit.site):
                if read in found:
                    found[read] = found[read].widened()
                    found[read].merge(statistic)
                else:
                    found[read] = statistic


def plan_reads(
    wrapper: ModelWrapper,
    route: Route,
    reads: Mapping[str, Sequence[Read]],
    layers: Sequence[Layer],
) -> Stops:
    """Return the stops of a pass: equal reads once, sites in the order the model reaches them.

    Raises InvalidValueError for reads of two layers where the second does not come behind.
    """
    places: dict[tuple[str, str], dict[Awaited, list[Read]]] = {}
    constants: dict[str, dict[Any, Statistic]] = {}
    described = {**wrapper.layers, **{layer.name: layer for layer in layers}}
    for layer in layers:
        constants[layer.name] = {"layer": layer}
        for read in joined_reads(reads[layer.name]):
            if read.site == "weight":
                constants[layer.name][read] = _weight_statistic(wrapper, layer, read)
                continue
            awaited = _awaited(read, layer.name, route)
            here = places.setdefault((layer.name, read.site), {})
            here.setdefault(awaited, []).append(read)
            if isinstance(awaited, tuple):
                places.setdefault(awaited, {})
    visits = [
        Visit(described[name], site, number, {k: tuple(v) for k, v in found.items()}, where)
        for (name, site), found in places.items()
        for where in [_device(wrapper, name)]
        for number in range(route.visits[name])
    ]
    visits.sort(key=lambda v: route.events[(v.layer.name, v.number, v.site)])
    both = {n for n, rs in reads.items() for r in rs if "input" in r.statistic.needs}
    return Stops(tuple(visits), constants, frozenset(both))


def _device(wrapper: ModelWrapper, name: str) -> torch.device | None:
    """Where a layer's weights are; None where they come and go, as when they are off-loaded."""
    first = next(wrapper.torch_module(name).parameters(), None)
    return None if first is None or first.is_meta else first.device


def _awaited(read: Read, name: str, route: Route) -> Awaited:
    """What has to be there before a read can be measured: the last of what it needs to come."""
    if "gradient" in read.statistic.needs:
        return GRADIENT
    if read.of_outputs:
        return OUTPUTS
    if not read.beside:
        return NOTHING
    later = route.beside(name, read.beside)
    if later is None or not route.follows(later, name, read.site):
        what = repr(later) if later else "any layer"
        raise InvalidValueError(
            f"layer {name!r} is read beside {what}, which the forward pass does not call behind it"
        )
    return later, read.site


def _weight_statistic(wrapper: ModelWrapper, layer: Layer, read: Read) -> Statistic:
    module = wrapper.torch_module(layer.name)
    rows = viewed_weights(read.view, layer, module, wrapper.reference_weight(layer))
    if rows.is_meta:
        raise IncompatibleModelError(
            f"the weights of layer {layer.name!r} are off-loaded, and come only while it runs: "
            "load the model onto devices that hold it, or leave out lenses that read weights"
        )
    check_finite(rows, layer.name, "weight")
    return read.statistic.measure(Sample(rows, window=layer.window), **dict(read.options))


def gather(wrapper: ModelWrapper, batch: Batch, stops: Stops) -> Gathering:
    """Return what a pass shows; runs inside a trace, in forward order."""
    constants = {name: dict(found) for name, found in stops.constants.items()}
    gathering = Gathering(wrapper, batch, constants)
    for visit in stops.visits:
        source = None
        with wrapper.visit(visit.number):
            envoy = wrapper.envoy(visit.layer.name)
            if visit.site == "output" and visit.layer.name in stops.inputs_for_outputs:
                source = visit.canonical(envoy.input, "input", batch).detach()
            raw = envoy.input if visit.site == "input" else envoy.output
            wanted = GRADIENT in visit.reads
            tensor = _kept(raw, envoy, visit) if wanted else _safe(raw, visit)
        if source is not None and visit.reads.keys() - {NOTHING}:
            source = source.clone()
        gathering.arrive(Seen(visit, tensor, source))
    if stops.gradients or stops.awaits(OUTPUTS):
        gathering.end(wrapper.nnsight.output)
    return gathering


def _safe(raw: Any, visit: Visit) -> Tensor:
    """The tensor itself where it is measured at once, a copy where the model may work on it."""
    tensor = first_tensor(raw)
    if tensor is None:
        canonical(raw, visit.layer, visit.site)  # says that there is none
    assert tensor is not None
    return tensor.detach().clone() if visit.reads.keys() - {NOTHING} else tensor


def _kept(raw: Any, envoy: Any, visit: Visit) -> Tensor:
    """A tensor to differentiate by, safe from what the model does to its own copy in place."""
    if not torch.is_grad_enabled():
        raise IncompatibleModelError(
            f"the model runs layer {visit.layer.name!r} without gradients, in no_grad or a "
            "re-entrant checkpoint: leave the layer out, or have the model run it with them"
        )
    tensor = first_tensor(raw)
    if tensor is None:
        raise ShapeError(f"{type(raw).__name__} holds no tensor to take a gradient at")
    if visit.site == "input":
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


def measure_gradients(gathering: Gathering, prediction: Prediction) -> None:
    """Differentiate the loss by every tensor that waits for it, and measure there."""
    waiting, batch = gathering.waiting.pop(GRADIENT), gathering.batch
    logits = Logits(gathering.outputs, batch, gathering.wrapper.module)
    gathering.outputs = None
    with full_precision(prediction.loss.device):
        try:
            gradients = torch.autograd.grad(
                prediction.loss, [seen.tensor for seen in waiting], materialize_grads=True
            )
        except CheckpointError as failure:
            raise IncompatibleModelError(
                "the model computes activations again on the way back (torch.utils.checkpoint), "
                "past what was read: switch its checkpointing off to measure gradients"
            ) from failure
    for seen, gradient in zip(waiting, gradients, strict=True):
        slope = seen.canonical(batch, gradient)
        check_finite(slope, seen.visit.layer.name, f"{seen.visit.site}'s gradient")
        gathering.measure(
            seen,
            GRADIENT,
            seen.canonical(batch),
            gradient=slope,
            terms=prediction.terms,
            logits=logits,
        )


def check_kept(waiting: Iterable[Seen], batch: Batch) -> None:
    """Raise NonFiniteError at the first kept tensor that is not finite: where a bad loss began."""
    for seen in waiting:
        values, layer = seen.canonical(batch), seen.visit.layer
        counted = counted_rows(values, batch, layer)
        check_finite(values if counted is None else values[counted], layer.name, seen.visit.site)
