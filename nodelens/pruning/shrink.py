"""Surgery: a smaller model without the channels that masks remove, equal to the masked one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, SurgeryError
from nodelens.model import ModelWrapper, wrap
from nodelens.model.copying import independent_copy
from nodelens.model.layers import describe, named
from nodelens.model.loaded import check_loaded, check_untied
from nodelens.pruning.comparing import compared
from nodelens.pruning.configuration import configured, has_configuration
from nodelens.pruning.groups import Cuts, Graph, check_agreed
from nodelens.pruning.heads import head_cuts, recount_heads
from nodelens.pruning.requests import Request, read_masks
from nodelens.pruning.shrunk_report import (
    Change,
    ShrinkReport,
    bytes_of,
    latencies,
    macs_of,
    parameters_of,
)
from nodelens.pruning.surgery import narrow, silence_weights

__all__ = ["Shrunk", "shrink"]


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, what the surgery did, and which channels of the original are left.

    `kept` is `{layer: numbers}` of outputs, `kept_inputs` of inputs, for layers that lost some;
    `resized` is `{module: {attribute: (before, after)}}`, what a saved model is rebuilt from.
    """

    model: nn.Module
    report: ShrinkReport
    kept: Mapping[str, Tensor]
    kept_inputs: Mapping[str, Tensor]
    resized: Mapping[str, Mapping[str, tuple[Any, Any]]]


@dataclass
class _Plan:
    """All that is to be done: cut out, set to zero, and silenced in the reference."""

    cuts: Cuts = field(default_factory=Cuts)
    zeros: Cuts = field(default_factory=Cuts)
    silent: Cuts = field(default_factory=Cuts)
    padded: dict[str, int] = field(default_factory=dict)
    along: dict[str, tuple[str, ...]] = field(default_factory=dict)


def shrink(
    model: Any,
    masks: Mapping[str, Tensor],
    example_inputs: Any,
    *,
    round_to: int = 8,
    uniform: bool = True,
    tolerance: float | None = None,
    rounds: int = 5,
) -> Shrunk:
    """Return a smaller copy of a model that computes what it does with channels silenced.

    `masks` is `{layer: bool (channels,), True = kept}`. An FFN is named by its down projection
    (the mask is of its inputs) or by what feeds that; attention by its output projection, with one
    entry a key-value group or a head, whole groups only. Channels that belong together (residuals,
    norms, gate and up, depthwise convolutions) go together, also where one layer alone has a mask.
    `example_inputs` is a batch as `analyse` takes it; on it, the smaller model and the masked one
    (`silenced_outputs`, behind BatchNorm) are compared: their largest difference is at most
    `tolerance` of the largest output (default: the square root of the precision of its dtype).

    Hugging Face models stay loadable: widths are equal in all layers, or an error unless
    `uniform=False`, and FFN widths are rounded up to multiples of `round_to`, by units whose
    weights are zero. `rounds` passes of each model are timed.

    Raises SurgeryError (a ValueError) where the result would compute something else, and the other
    errors of `read_masks`; the given model is untouched in any case.
    """
    _check_options(round_to, tolerance, rounds)
    wrapper = wrap(model)
    check_loaded(wrapper.module)
    # The graph is traced by autograd, which tensors made in inference mode cannot take part in.
    with torch.inference_mode(False):
        batch = _ordinary(wrapper.prepare_batch(example_inputs))
        requests = read_masks(wrapper, wrapper.route(batch), masks)
        small, plan, pretrained = _operated(wrapper, batch, requests, round_to, uniform)
        apart = compared(wrapper, batch, small, plan.silent, plan.cuts.names, tolerance)
        report = _reported(wrapper, batch, small, plan, rounds, (*apart, pretrained))
    return Shrunk(
        small,
        report,
        _kept(wrapper, plan.cuts.outputs, "channels"),
        _kept(wrapper, plan.cuts.inputs, "inputs"),
        _resized(wrapper.module, small),
    )


def _ordinary(batch: Batch) -> Batch:
    def copied(value: Any) -> Any:
        inference = isinstance(value, Tensor) and value.is_inference()
        return value.clone() if inference else value

    kwargs = {name: copied(value) for name, value in batch.kwargs.items()}
    return replace(batch, args=tuple(copied(value) for value in batch.args), kwargs=kwargs)


def _operated(
    wrapper: ModelWrapper,
    batch: Batch,
    requests: Mapping[str, Request],
    round_to: int,
    uniform: bool,
) -> tuple[nn.Module, _Plan, bool]:
    """Return the smaller model, what was done, and whether its configuration says it all."""
    small = independent_copy(wrapper.module)
    flags = {name: p.requires_grad for name, p in small.named_parameters()}
    training = [m.training for m in small.modules()]
    described_by_config = has_configuration(small)
    plan = _plan(wrapper, batch, small, requests, round_to if described_by_config else 1)
    _check_plan(wrapper, small, plan)
    silence_weights(small, plan.zeros)
    narrow(small, plan.cuts)
    heads = {name: r for name, r in requests.items() if r.kind == "heads"}
    for request in heads.values():
        recount_heads(small, wrapper.layers, request)
    downs = wrapper.route(batch).down_projections
    pretrained = described_by_config and configured(
        small, wrapper.layers, downs, heads, uniform=uniform
    )
    for name, p in small.named_parameters():
        p.requires_grad_(flags[name])
    for m, flag in zip(small.modules(), training, strict=True):
        m.training = flag
    return small, plan, pretrained


def _reported(
    wrapper: ModelWrapper,
    batch: Batch,
    small: nn.Module,
    plan: _Plan,
    rounds: int,
    found: tuple[float, float, bool],
) -> ShrinkReport:
    both = (wrapper.module, small)
    difference, tolerance, pretrained = found
    return ShrinkReport(
        Change(*map(parameters_of, both)),
        Change(*map(bytes_of, both)),
        Change(*(macs_of(model, batch) for model in both)),
        latencies(both, batch, rounds),
        difference,
        tolerance,
        _widths(wrapper, small, "channels"),
        _widths(wrapper, small, "inputs"),
        plan.along,
        plan.padded,
        pretrained,
    )


def _plan(
    wrapper: ModelWrapper,
    batch: Batch,
    small: nn.Module,
    requests: Mapping[str, Request],
    rounding: int,
) -> _Plan:
    downs = set(wrapper.route(batch).down_projections)
    heads = {
        name: head_cuts(wrapper.layers, r) for name, r in requests.items() if r.kind == "heads"
    }
    others = {name: r for name, r in requests.items() if r.kind != "heads"}
    graph = Graph(small, batch) if others else None
    groups = {name: graph.cuts(r) for name, r in others.items()} if graph else {}
    check_agreed(requests, groups)
    plan = _Plan(along=_along(requests, {**groups, **heads}))
    for cuts in heads.values():
        plan.cuts.add(cuts)
        plan.silent.add(Cuts(inputs=cuts.inputs))
    units: dict[str, Cuts] = {}
    for cuts in groups.values():
        if found := cuts.inputs.keys() & downs:
            for name in found:
                units.setdefault(name, Cuts()).add(cuts)
        else:
            plan.cuts.add(cuts)
            plan.silent.add(Cuts({n: c for n, c in cuts.outputs.items() if n in wrapper.layers}))
    for name, cuts in units.items():
        assert graph is not None
        plan.silent.add(Cuts(inputs={name: cuts.inputs[name]}))
        _add_units(plan, wrapper, graph, name, cuts, rounding)
    if graph is not None:
        graph.release()
    return plan


def _add_units(
    plan: _Plan, wrapper: ModelWrapper, graph: Graph, name: str, cuts: Cuts, rounding: int
) -> None:
    """Add an FFN to the plan; so many of its removed units stay, as zeros, that it is round."""
    layer, removed = wrapper.layers[name], sorted(cuts.inputs[name])
    kept = layer.inputs - len(removed)
    round_width = min(layer.inputs, -(-kept // rounding) * rounding)
    stay = round_width - kept
    if stay and kept:
        plan.padded[name] = stay
        plan.zeros.add(graph.cuts(Request(layer, "units", tuple(removed[:stay]))))
        cuts = graph.cuts(Request(layer, "units", tuple(removed[stay:])))
    plan.cuts.add(cuts)


def _along(
    requests: Mapping[str, Request], groups: Mapping[str, Cuts]
) -> dict[str, tuple[str, ...]]:
    found = {}
    asked = {name for name, request in requests.items() if request.kind == "channels"}
    for name, cuts in groups.items():
        others = tuple(sorted(cuts.outputs.keys() - asked))
        if others:
            found[name] = others
    return found


def _check_plan(wrapper: ModelWrapper, small: nn.Module, plan: _Plan) -> None:
    check_untied(small, plan.cuts.names | plan.zeros.names)
    for side, found in (("channels", plan.cuts.outputs), ("inputs", plan.cuts.inputs)):
        for name, removed in found.items():
            layer = wrapper.layers.get(name)
            if layer is not None and len(removed) >= getattr(layer, side):
                raise SurgeryError(
                    f"layer {name!r} would lose all of its {len(removed)} {side}, expected at "
                    "least one to be kept"
                )


def _widths(wrapper: ModelWrapper, small: nn.Module, side: str) -> dict[str, tuple[int, int]]:
    modules, found = named(small), {}
    for name, layer in wrapper.layers.items():
        before, after = getattr(layer, side), getattr(describe(name, modules[name]), side)
        if before != after:
            found[name] = (before, after)
    return found


def _kept(wrapper: ModelWrapper, cuts: Mapping[str, set[int]], side: str) -> dict[str, Tensor]:
    found = {}
    for name, removed in cuts.items():
        if name in wrapper.layers and removed:
            width = getattr(wrapper.layers[name], side)
            found[name] = torch.tensor([i for i in range(width) if i not in removed])
    return found


def _resized(model: nn.Module, small: nn.Module) -> dict[str, dict[str, tuple[Any, Any]]]:
    """The numbers that modules keep of their widths, where they are not what they were."""
    found = {}
    for (name, old), new in zip(model.named_modules(), small.modules(), strict=True):
        before, after = _numbers(old), _numbers(new)
        changed = {key: (before[key], after[key]) for key in after if before[key] != after[key]}
        if changed:
            found[name] = changed
    return found


def _numbers(module: nn.Module) -> dict[str, Any]:
    own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    return {key: value for key, value in own.items() if _is_width(value)}


def _is_width(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_width(v) for v in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _check_options(round_to: int, tolerance: float | None, rounds: int) -> None:
    for option, value, least in (("round_to", round_to, 1), ("rounds", rounds, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidValueError(f"{option} is {value!r}, expected {least} or more")
    if tolerance is not None and not tolerance >= 0:
        raise InvalidValueError(f"tolerance is {tolerance!r}, expected 0 or more, or None")
