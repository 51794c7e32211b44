"""The reads of a metric lens measured on tensors at hand instead of a traced model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.model.costs import cost_of, exceeded
from nodelens.model.layers import Layer, canonical, check_finite, describe
from nodelens.model.rows import labelled_rows, row_targets
from nodelens.model.views import look, viewed_weights
from nodelens.statistics import Sample, Statistic, Window
from nodelens.statistics.read import Read

if TYPE_CHECKING:
    from nodelens.metrics.lens import MetricLens

__all__ = ["measure_plain"]

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def measure_plain(lens: MetricLens, **tensors: Tensor | None) -> dict[Any, Statistic]:
    """Return the statistics that a lens reads, measured on the tensors given."""
    given = {name: t.detach() for name, t in tensors.items() if t is not None}
    module = _module(given)
    layer = describe("tensors", module)
    assert layer is not None
    if isinstance(module, nn.Linear) and given.get("outputs", given.get("inputs")) is not None:
        layer = _with_maps(layer, given)
    given.setdefault("outputs", _outputs(given, module))
    _check_room(lens, layer, given)
    return {"layer": layer} | {
        read: _measured(lens, read, layer, module, given).widened()
        for read in lens.reads(layer).values()
    }


def _check_room(lens: MetricLens, layer: Layer, given: Mapping[str, Tensor]) -> None:
    """Raise InvalidValueError where matrices of pairs exceed the memory that is left."""
    device = next(iter(given.values())).device
    pairs = [read for read in lens.reads(layer).values() if read.pairwise]
    others = given.get("next_outputs")
    beside = None if others is None else _as_large(layer, others)
    costs = [cost_of(layer, read, (device, torch.float32), beside=beside) for read in pairs]
    if (short := exceeded({device: sum(c.state + c.fresh for c in costs)})) is not None:
        raise InvalidValueError(f"{short}: run the lens on a module, with a memory_budget=")


def _as_large(layer: Layer, values: Tensor) -> Layer:
    return replace(layer, channels=values.shape[1] if values.ndim > 3 else values.shape[-1])


def _module(given: Mapping[str, Tensor]) -> nn.Module:
    weights = given.get("weights")
    if weights is None:
        sites = [given[name] for name in ("outputs", "inputs") if name in given]
        if not sites:
            raise InvalidValueError("no tensor was given, expected inputs, outputs or weights")
        sizes = [t.shape[1] if t.ndim > 3 else t.shape[-1] for t in sites]
        return nn.Linear(sizes[-1], sizes[0], bias=False, device="meta")
    seen = given.get("inputs")
    if weights.ndim in _CONVOLUTIONS and (seen is None or seen.ndim == weights.ndim):
        kind = _CONVOLUTIONS[weights.ndim]
        outputs, inputs, *kernel = weights.shape
        options = {"kernel_size": tuple(kernel), "padding": _padding(given)}
        module: nn.Module = kind(inputs, outputs, bias=False, **options)  # type: ignore[arg-type]
        module.weight = nn.Parameter(weights, requires_grad=False)
        return module
    rows = weights.flatten(1)
    flat = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    flat.weight = nn.Parameter(rows, requires_grad=False)
    return flat


def _padding(given: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The symmetric padding that turns the inputs' maps into the outputs'."""
    kernel = given["weights"].shape[2:]
    if "outputs" not in given or "inputs" not in given:
        return (0,) * len(kernel)
    sizes = zip(given["outputs"].shape[2:], given["inputs"].shape[2:], kernel, strict=True)
    missing = [out - size + k - 1 for out, size, k in sizes]
    if any(m < 0 or m % 2 for m in missing):
        raise ShapeError(
            f"outputs of shape {tuple(given['outputs'].shape)} do not come from inputs of shape "
            f"{tuple(given['inputs'].shape)} at stride 1; give im2col rows, or analyse the module"
        )
    return tuple(m // 2 for m in missing)


def _with_maps(layer: Layer, given: Mapping[str, Tensor]) -> Layer:
    """Maps given without a kernel have their channels on axis 1, as a 1 x 1 convolution's."""
    values = given.get("outputs", given.get("inputs"))
    if values is None or values.ndim < 4:
        return layer
    ones = (1,) * (values.ndim - 2)
    window = Window(ones, ones, ones, ((0, 0),) * len(ones))
    return Layer(layer.name, layer.channels, layer.inputs, layer.width, window)


def _outputs(given: Mapping[str, Tensor], module: nn.Module) -> Tensor:
    if "inputs" not in given or "weights" not in given:
        return torch.empty(0)
    if isinstance(module, nn.Linear):
        return linear(given["inputs"], module.weight)
    made: Tensor = module(given["inputs"])
    return made.detach()


def _measured(
    lens: MetricLens, read: Read, layer: Layer, module: nn.Module, given: Mapping[str, Tensor]
) -> Statistic:
    reference = given.get("initial_weights")
    options = dict(read.options)
    if read.site == "weight":
        _require(lens, given, "weights")
        rows = viewed_weights(read.view, layer, module, reference)
        return read.statistic.measure(Sample(rows, window=layer.window), **options)
    seen = _seen(lens, read, layer, given)
    targets = None
    if "targets" in read.statistic.needs:
        _require(lens, given, "targets")
        targets, labelled = _targets(lens, read, layer, given, len(seen["values"]))
        seen = seen if labelled is None else {name: each[labelled] for name, each in seen.items()}

    def looked(name: str, reference: Tensor | None = None) -> Tensor:
        return look(read.view, seen[name], layer, module, reference)

    values, beside = looked("values", reference), None
    gradient = looked("gradient") if "gradient" in seen else None
    if read.beside:
        _require(lens, given, "next_outputs")
        values, beside = _paired(values, given["next_outputs"])
    return read.statistic.measure(
        Sample(values, gradient, targets, seen.get("inputs"), layer.window, beside=beside),
        **options,
    )


def _seen(
    lens: MetricLens, read: Read, layer: Layer, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The values at a site, and the gradient there and the inputs where they are needed."""
    wanted = {"values": (f"{read.site}s", read.site)}
    if "gradient" in read.statistic.needs:
        wanted["gradient"] = ("gradients", read.site)
    if "input" in read.statistic.needs:
        wanted["inputs"] = ("inputs", "input")
    found = {}
    for name, (tensor, site) in wanted.items():
        _require(lens, given, tensor)
        found[name] = canonical(given[tensor], layer, site)
        check_finite(found[name], layer.name, "gradient" if name == "gradient" else site)
    return found


def _targets(
    lens: MetricLens, read: Read, layer: Layer, given: Mapping[str, Tensor], rows: int
) -> tuple[Tensor, Tensor | None]:
    """The targets of the rows that have one, and which rows those are, None for all."""
    targets = given["targets"]
    if len(targets) not in (len(given[f"{read.site}s"]), rows):
        raise ShapeError(f"{len(targets)} targets for {rows} rows")
    if read.of_outputs and not targets.is_floating_point():
        raise InvalidValueError(
            f"lens {lens.name!r} is about {read.target.replace('_', ' ')}: targets= are those "
            f"numbers here, floats, not {targets.dtype}"
        )
    check_finite(targets, layer.name, "targets")
    spread = row_targets(targets, rows, layer)
    labelled = labelled_rows(spread)
    return (spread if labelled is None else spread[labelled]), labelled


def _paired(values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of two layers; maps of unlike size are averaged over their positions first."""
    check_finite(others, "next", "output")
    others = others.flatten(2) if others.ndim > 3 else others.reshape(-1, others.shape[-1])
    if values.shape[:1] + values.shape[2:] != others.shape[:1] + others.shape[2:]:
        values, others = (x.mean(2) if x.ndim > 2 else x for x in (values, others))
    if len(values) != len(others):
        raise ShapeError(f"{len(others)} rows of the next layer for {len(values)} rows")
    return values, others.to(values.dtype)


def _require(lens: MetricLens, given: Mapping[str, Tensor], name: str) -> None:
    if name not in given or not given[name].numel():
        raise InvalidValueError(f"lens {lens.name!r} needs {name}= to compute a score")
