"""Strategies that score by statistics, which a stream gives, or tensors at hand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    MissingLossError,
)
from nodelens.metrics import MetricLens
from nodelens.model import ModelWrapper, wrap
from nodelens.model.layers import Layer, canonical, check_finite, describe, weight_rows
from nodelens.model.views import look, viewed_weights
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import weight_of
from nodelens.pruning.strategy import Strategy
from nodelens.pruning.units import Units, prunable
from nodelens.reading import located
from nodelens.statistics import Moments, PatchMoments, Read, Sample, wide

__all__ = ["OfStatistics", "OfWeightStatistics", "input_moments", "measure", "per_weight"]

Named = Mapping[str, Any]
"""The statistics of a layer by the names they were asked for under."""

Reads = Mapping[str, Mapping[str, Read]]
"""What to read, by layer and name."""


class _Readings(MetricLens):
    """Reads what it is told to at every layer; scores are made of it elsewhere."""

    name = "readings"

    def __init__(self, wanted: Reads) -> None:
        super().__init__(layers=list(wanted))
        self.wanted_reads = wanted

    def covers(self, layer: Layer) -> bool:
        return layer.name in self.wanted_reads

    def reads(self, layer: Layer) -> dict[str, Read]:
        return dict(self.wanted_reads[layer.name])

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        raise NotImplementedError

    def by_name(self, found: Mapping[str, Any]) -> dict[str, Named]:
        return {name: self._named(found[name]) for name in self.wanted_reads}


def measure(
    model: ModelWrapper, wanted: Reads, batches: Iterable[Any], **options: Any
) -> dict[str, Named]:
    """Return the merged statistics of one pass over the batches, by layer and name.

    `options` are those of `Lens.measure` and of a batch, such as `progress` or `loss`.
    """
    lens = _Readings(wanted)
    aggregator = lens.measure(model, batches, **{"progress": False, **options})
    return lens.by_name(aggregator.statistics)


def measure_alone(
    reads: Mapping[str, Read],
    module: nn.Module,
    layer: Layer,
    given: Tensors,
) -> dict[str, Any]:
    """Return the statistics of one layer, of the tensors it takes and gives.

    Raises InvalidValueError when a tensor is missing that is read, MissingLossError for gradients.
    """
    if any("gradient" in read.statistic.needs for read in reads.values()):
        raise MissingLossError("a loss is needed: score the model, or give the weight's gradients")
    found = {}
    for name, read in reads.items():
        if read.site == "weight":
            rows = viewed_weights(read.view, layer, module, None)
            check_finite(rows, layer.name, "weight")
            found[name] = read.statistic.measure(Sample(rows, window=layer.window))
            continue
        values = _values(read.site, module, layer, given)
        sample = Sample(look(read.view, values, layer, module, None), window=layer.window)
        found[name] = read.statistic.measure(sample, **dict(read.options)).widened()
    return found


def _values(site: str, module: nn.Module, layer: Layer, given: Tensors) -> Tensor:
    found = given.inputs if site == "input" else given.outputs_of(module)
    if found is None:
        raise InvalidValueError(f"{site}s are needed and none were given: pass {site}s= or batches")
    values = canonical(found.detach(), layer, site)
    check_finite(values, layer.name, site)
    return values


class OfStatistics(Strategy):
    """A strategy that reads statistics at every layer and makes its scores of them."""

    @abstractmethod
    def reads(self, layer: Layer) -> dict[str, Read]:
        """Return what is measured at a layer, by the names `rate` knows it under."""

    @abstractmethod
    def rate(self, found: Named, layer: Layer, rows: Tensor) -> Tensor:
        """Return the importance of every output channel, `(channels,)`.

        `rows` are the layer's weight rows `(channels, width)` in float64.
        """

    def covers(self, layer: Layer) -> bool:
        """Return whether the strategy can score a layer."""
        return True

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the importance of a layer's channels, `(channels,)`; a higher score is kept.

        Raises InvalidValueError when tensors are missing, ShapeError for those of another layer.
        """
        weight_of(layer)
        described = describe("to prune", layer)
        assert described is not None
        found = measure_alone(self.reads(described), layer, described, given)
        return self.rate(found, described, wide(weight_rows(layer)))

    def scores(
        self,
        model: Any,
        batches: Iterable[Any] | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        pattern: str | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Return the scores of a model's layers, as `Strategy.scores`.

        Without `layers` or `pattern`, of those the strategy can score; one that it cannot and that
        was asked for is an InvalidValueError.
        """
        wrapper = wrap(model)
        with self.named():
            batches = self._batches(wrapper, batches)
            if layers is None and pattern is None:
                layers = self._coverable(wrapper)
        return super().scores(wrapper, batches, layers=layers, pattern=pattern, **options)

    def _coverable(self, model: ModelWrapper) -> list[str]:
        names = [
            name
            for name in prunable(model, heads=self.of_heads)
            if self.covers(located(model, name))
        ]
        if not names:
            kind = type(model.module).__name__
            raise IncompatibleModelError(f"it can score no layer of this {kind}")
        return names

    def _scores(self, run: Run) -> dict[str, Tensor]:
        for name in run.units:
            if not self.covers(located(run.model, name)):
                raise InvalidValueError(f"it cannot score layer {name!r}")
        wanted = {
            layer: reads
            for unit in run.units.values()
            for layer, reads in self.reads_of(run.model, unit).items()
        }
        found = measure(run.model, wanted, run.batches, **run.options)
        return {name: self.rate_units(found, run.model, unit) for name, unit in run.units.items()}

    def reads_of(self, model: ModelWrapper, unit: Units) -> dict[str, dict[str, Read]]:
        """Return what is read for the units of one name, by layer: of an FFN, its rows."""
        names = unit.feeders if unit.site == "input" else (unit.name,)
        return {name: self.reads(located(model, name)) for name in names}

    def rate_units(self, found: Mapping[str, Named], model: ModelWrapper, unit: Units) -> Tensor:
        """Return the score of every unit of one name; those of an FFN's rows are added up."""
        names = unit.feeders if unit.site == "input" else (unit.name,)
        return sum_of([self._rated(found[name], model, name) for name in names])

    def _rated(self, found: Named, model: ModelWrapper, name: str) -> Tensor:
        return self.rate(found, located(model, name), rows_of(model, name))


class OfWeightStatistics(OfStatistics):
    """A strategy that gives every weight a number, of the weight and of the inputs it meets.

    Single weights are masked by it with `structured=False`. Of a channel it is the sum over its
    row, and of an FFN's unit over its column in the down projection, whose input the unit is.
    """

    needs = ("inputs",)
    unit = "both"

    @abstractmethod
    def rate(self, found: Named, layer: Layer, rows: Tensor) -> Tensor:
        """Return the importance of every weight, `(channels, width)`."""

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"inputs": input_moments(layer)}

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the importance of every channel, or with `structured=False` of every weight.

        `inputs` are what the layer takes in, `(rows, width)` or maps.
        """
        rated = super()._score(layer, given)
        return in_shape(rated, layer) if self.of_weights else self.finished(rated.sum(1))

    def score_inputs(self, layer: nn.Module, inputs: Tensor) -> Tensor:
        """Return the importance of every input channel of a linear layer, `(inputs,)`.

        That of the units of an FFN, where the layer is its down projection.
        """
        rated = OfStatistics._score(self, layer, Tensors(inputs))
        return self.finished(rated.sum(0))

    def reads_of(self, model: ModelWrapper, unit: Units) -> dict[str, dict[str, Read]]:
        return {unit.name: self.reads(located(model, unit.name))}

    def rate_units(self, found: Mapping[str, Named], model: ModelWrapper, unit: Units) -> Tensor:
        rated = self._rated(found[unit.name], model, unit.name)
        if self.of_weights:
            return in_shape(rated, model.torch_module(unit.name))
        return self.finished(rated.sum(0 if unit.site == "input" else 1))

    def finished(self, scores: Tensor) -> Tensor:
        """Return the scores of a layer's channels or units as they are compared with others'."""
        return scores


def input_moments(layer: Layer) -> Read:
    """Return the read of the moments of what each weight of a row meets."""
    if layer.window is None:
        return Read("input", Moments)
    return Read("input", PatchMoments, view="maps")


def per_weight(values: Tensor, layer: Layer) -> Tensor:
    """Return numbers of what each weight meets, to multiply weight rows with.

    `values` are `(width,)`, or `(groups * width,)` where groups of channels have own inputs.
    """
    grouped = values.view(layer.groups, -1)
    return grouped.repeat_interleave(layer.channels // layer.groups, dim=0)


def rows_of(model: ModelWrapper, name: str) -> Tensor:
    """Return a layer's weight rows in float64, `(channels, width)`."""
    return wide(weight_rows(model.torch_module(name)))


def in_shape(rows: Tensor, module: nn.Module) -> Tensor:
    """Return numbers by weight row in the weight's own shape."""
    weight = weight_of(module)
    same = weight_rows(module).shape == weight.shape
    return rows if same else (rows.T if weight.ndim == 2 else rows.reshape(weight.shape))


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(0)
