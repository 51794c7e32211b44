"""Surgery: a smaller model without the channels that masks remove, equal to the masked one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, SurgeryError
from nodelens.interventions import silenced_outputs, silencing
from nodelens.model import ModelWrapper, wrap
from nodelens.model.copying import independent_copy
from nodelens.model.layers import describe, named
from nodelens.model.session import untouched
from nodelens.pruning.configuration import configured, has_configuration
from nodelens.pruning.groups import Cuts, Graph, agreed
from nodelens.pruning.heads import head_cuts, recount_heads
from nodelens.pruning.requests import Request, check_loaded, check_untied, read_masks
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

_CANNOT_RUN = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


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
    wrapper = wrap(model)
    _check_options(round_to, tolerance, rounds)
    check_loaded(wrapper.module)
    batch = wrapper.prepare_batch(example_inputs)
    requests = read_masks(wrapper, wrapper.route(batch), masks)
    small = independent_copy(wrapper.module)
    flags = {name: p.requires_grad for name, p in small.named_parameters()}
    training = {name: m.training for name, m in small.named_modules()}
    rounding = round_to if has_configuration(small) else 1
    plan = _plan(wrapper, batch, small, requests, rounding)
    _check_plan(wrapper, small, plan)
    silence_weights(small, plan.zeros)
    narrow(small, plan.cuts)
    heads = {name: r for name, r in requests.items() if r.kind == "heads"}
    for request in heads.values():
        recount_heads(small, wrapper.layers, request)
    pretrained = has_configuration(small) and configured(
        small, wrapper.layers, wrapper.route(batch).down_projections, heads, uniform=uniform
    )
    for name, p in small.named_parameters():
        p.requires_grad_(flags[name])
    for name, m in small.named_modules():
        m.training = training[name]
    difference, tolerance = _compared(wrapper, batch, small, plan, tolerance)
    report = ShrinkReport(
        Change(parameters_of(wrapper.module), parameters_of(small)),
        Change(bytes_of(wrapper.module), bytes_of(small)),
        Change(macs_of(wrapper.module, batch), macs_of(small, batch)),
        latencies((wrapper.module, small), batch, rounds),
        difference,
        tolerance,
        _widths(wrapper, small, "channels"),
        _widths(wrapper, small, "inputs"),
        plan.along,
        plan.padded,
        pretrained,
    )
    return Shrunk(
        small,
        report,
        _kept(wrapper, plan.cuts.outputs, "channels"),
        _kept(wrapper, plan.cuts.inputs, "inputs"),
        _resized(wrapper.module, small),
    )


def _plan(
    wrapper: ModelWrapper,
    batch: Batch,
    small: nn.Module,
    requests: Mapping[str, Request],
    rounding: int,
) -> _Plan:
    downs = set(wrapper.route(batch).down_projections)
    heads = {name: head_cuts(wrapper.layers, r) for name, r in requests.items() if r.kind == "heads"}
    others = {name: r for name, r in requests.items() if r.kind != "heads"}
    graph = Graph(small, batch) if others else None
    groups = {name: graph.cuts(r) for name, r in others.items()} if graph else {}
    agreed(requests, groups)
    plan = _Plan(along=_along(requests, {**groups, **heads}))
    for cuts in heads.values():
        plan.cuts.add(cuts)
        plan.silent.add(Cuts(inputs=cuts.inputs))
    units: dict[str, set[int]] = {}
    for cuts in groups.values():
        if found := cuts.inputs.keys() & downs:
            for name in found:
                units.setdefault(name, set()).update(cuts.inputs[name])
        else:
            plan.cuts.add(cuts)
            plan.silent.add(Cuts({n: c for n, c in cuts.outputs.items() if n in wrapper.layers}))
    for name, removed in units.items():
        assert graph is not None
        plan.silent.add(Cuts(inputs={name: removed}))
        _add_units(plan, wrapper, graph, name, sorted(removed), rounding)
    return plan


def _add_units(
    plan: _Plan, wrapper: ModelWrapper, graph: Graph, name: str, removed: list[int], rounding: int
) -> None:
    """Add an FFN to the plan; so many of its removed units stay, as zeros, that it is round."""
    layer = wrapper.layers[name]
    kept = layer.inputs - len(removed)
    round_width = min(layer.inputs, -(-kept // rounding) * rounding)
    stay = round_width - kept
    if stay and kept:
        plan.padded[name] = stay
        plan.zeros.add(graph.cuts(Request(layer, "units", tuple(removed[:stay]))))
        removed = removed[stay:]
    plan.cuts.add(graph.cuts(Request(layer, "units", tuple(removed))))


def _along(
    requests: Mapping[str, Request], groups: Mapping[str, Cuts]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, cuts in groups.items():
        others = tuple(sorted(cuts.outputs.keys() - requests.keys()))
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


def _compared(
    wrapper: ModelWrapper, batch: Batch, small: nn.Module, plan: _Plan, tolerance: float | None
) -> tuple[float, float]:
    """Return the largest difference from the masked model, and the largest that is allowed."""
    wanted = _answers(_masked(wrapper, batch, plan.silent))
    try:
        with torch.inference_mode(False), untouched(small):
            found = _answers(small(*batch.args, **batch.kwargs))
    except _CANNOT_RUN as failure:
        raise SurgeryError(
            f"the smaller {type(small).__name__} cannot run ({failure}): it counts these channels "
            f"elsewhere; nothing was changed. Cut were {_listed(plan.cuts.names)}"
        ) from failure
    if tolerance is None:
        tolerance = max((torch.finfo(t.dtype).eps ** 0.5 for t in wanted), default=0.0)
    difference = _difference(found, wanted)
    if not difference <= tolerance:
        raise SurgeryError(
            f"the smaller model's output differs from the masked one's by {difference:.1e} of the "
            f"largest output, allowed are {tolerance:.1e}: a silent channel still has an effect "
            "here, as through a norm over channels, or an activation that is not zero at zero; "
            f"nothing was changed. Cut were {_listed(plan.cuts.names)}"
        )
    return difference, tolerance


def _masked(wrapper: ModelWrapper, batch: Batch, silent: Cuts) -> Any:
    outputs = {name: sorted(numbers) for name, numbers in silent.outputs.items()}
    inputs = {name: sorted(numbers) for name, numbers in silent.inputs.items()}
    if not (outputs and inputs):
        site = "input" if inputs else "output"
        return silenced_outputs(wrapper, batch, inputs or outputs, site=site)
    route = wrapper.route(batch)
    bodies = [
        silencing(wrapper, route, channels, site=site)
        for channels, site in ((inputs, "input"), (outputs, "output"))
    ]
    return wrapper.trace(batch, bodies, watched=[*inputs, *outputs])[-1]


def _answers(outputs: Any) -> list[Tensor]:
    """The logits of a model that has such, else all of its floating point outputs."""
    from torch.utils._pytree import tree_leaves

    logits = getattr(outputs, "logits", None)
    leaves = [logits] if isinstance(logits, Tensor) else tree_leaves(outputs)
    return [t.detach() for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    shapes = [tuple(t.shape) for t in found], [tuple(t.shape) for t in wanted]
    if shapes[0] != shapes[1]:
        raise SurgeryError(
            f"the smaller model's outputs have shapes {shapes[0]}, the model's {shapes[1]}: these "
            "channels are its output, which has to stay whole"
        )
    largest = 0.0
    for mine, its in zip(found, wanted, strict=True):
        apart, scale = (mine.double() - its.double()).abs(), its.double().abs()
        if not bool(torch.isfinite(apart).all()):
            return float("nan")
        if mine.numel() and float(apart.max()):
            largest = max(largest, float(apart.max() / scale.max().clamp(min=1e-300)))
    return largest


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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)[:12]))


def _check_options(round_to: int, tolerance: float | None, rounds: int) -> None:
    for option, value, least in (("round_to", round_to, 1), ("rounds", rounds, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidValueError(f"{option} is {value!r}, expected {least} or more")
    if tolerance is not None and not tolerance >= 0:
        raise InvalidValueError(f"tolerance is {tolerance!r}, expected 0 or more, or None")
