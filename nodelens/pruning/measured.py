"""Scores of metric lenses for the units that are pruned, many lenses in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nodelens.composite import CompositeLens
from nodelens.errors import InvalidValueError
from nodelens.metrics import MetricLens
from nodelens.model import ModelWrapper
from nodelens.model.layers import is_transposed_linear, weight_rows
from nodelens.pruning.given import Tensors
from nodelens.pruning.masks import weight_of
from nodelens.pruning.units import Units

__all__ = ["lens_alone", "lens_scores", "many_scores"]

Layers = dict[str, Tensor]


def lens_scores(
    lens: MetricLens,
    model: ModelWrapper,
    units: Mapping[str, Units],
    batches: Iterable[Any],
    **options: Any,
) -> Layers:
    """Return a metric lens's own scores of units, one a unit, from one pass over the batches.

    An FFN's units are scored by a lens that scores what a down projection takes in; by any other,
    with the mean of what it says of the layers that feed them.
    """
    read = {name: _read_at(lens, model, unit) for name, unit in units.items()}
    with _limited([lens], [read]):
        result = lens.run(model, batches, progress=False, **options)
    values = result.scores(lens.name if lens.name in result.score_names else None)
    return {name: _of_unit(lens, unit, read[name], values) for name, unit in units.items()}


def lens_alone(lens: MetricLens, layer: nn.Module, given: Tensors) -> Tensor:
    """Return a metric lens's score of the channels of a layer given alone, `(channels,)`."""
    weight = weight_of(layer)
    weights = weight_rows(layer) if is_transposed_linear(layer) else weight
    found: Tensor = lens.compute(
        **{**vars(given), "outputs": given.outputs_of(layer)}, weights=weights
    )
    return found


def many_scores(
    asked: Sequence[tuple[MetricLens, Mapping[str, Units]]],
    model: ModelWrapper,
    batches: Iterable[Any],
    **options: Any,
) -> list[Layers]:
    """Return the scores of each lens for its units, as `lens_scores` does, from one pass for all.

    Nothing is run for a lens without units.
    """
    work = [(lens, units) for lens, units in asked if units]
    reads = [{n: _read_at(lens, model, u) for n, u in units.items()} for lens, units in work]
    composite = CompositeLens([lens for lens, _ in work])
    with _limited([lens for lens, _ in work], reads):
        result = composite.run(model, batches, progress=False, **options)
    found = []
    for (lens, units), read, label in zip(work, reads, composite.labels, strict=True):
        values = result.scores(label)
        found.append({n: _of_unit(lens, unit, read[n], values) for n, unit in units.items()})
    done = iter(found)
    return [next(done) if units else {} for _, units in asked]


@contextmanager
def _limited(
    lenses: Sequence[MetricLens], reads: Sequence[Mapping[str, tuple[str, ...]]]
) -> Iterator[None]:
    """Let each lens look at the layers it reads, and put its own choice back."""
    before = [lens.layers for lens in lenses]
    try:
        for lens, read in zip(lenses, reads, strict=True):
            lens.layers = sorted({layer for layers in read.values() for layer in layers})
        yield
    finally:
        for lens, layers in zip(lenses, before, strict=True):
            lens.layers = layers


def _read_at(lens: MetricLens, model: ModelWrapper, unit: Units) -> tuple[str, ...]:
    if unit.site == "output":
        return (unit.name,)
    of_units = getattr(lens, "of_units", lens.family == "scar")
    return (unit.name,) if of_units and lens.scores(unit.name, model) else unit.feeders


def _of_unit(
    lens: MetricLens, unit: Units, read: tuple[str, ...], values: Mapping[str, Tensor]
) -> Tensor:
    missing = [layer for layer in read if layer not in values]
    if missing:
        raise InvalidValueError(f"lens {lens.name!r} gives no score of layer {missing[0]!r}")
    parts = [values[layer] for layer in read]
    wrong = [tuple(part.shape) for part in parts if part.shape != (unit.size,)]
    if wrong:
        raise InvalidValueError(
            f"layer {unit.name!r}: lens {lens.name!r} gives scores of shape {wrong[0]}, "
            f"expected one of each of {unit.size} channels"
        )
    return sum(parts[1:], parts[0]) / len(parts)
