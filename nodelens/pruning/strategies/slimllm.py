"""SlimLLM: units by the directions they feed, heads by similarity, and a regression behind both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.model import ModelWrapper, wrap
from nodelens.model.layers import Layer
from nodelens.pruning.distributions import Budget, register_distribution
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics, measure, rows_of, sum_of
from nodelens.pruning.strategies.slimllm_heads import output_shares, searched, similarity_without
from nodelens.pruning.strategies.wanda import input_norms
from nodelens.pruning.units import Units, inputs_of_groups, site_of
from nodelens.statistics import CoMoments, Moments, Read, wide

__all__ = ["SlimLlm", "direction_weights", "linear_recovery", "slimllm"]


@register_strategy(
    "slimllm",
    paper="Guo, Chen, Tang and Wang (2025), SlimLLM: accurate structured pruning for large "
    "language models, ICML",
)
class SlimLlm(OfStatistics):
    """Norms of a unit's rows in gate and up and of its column in down, each weighed by its inputs.

    The column is taken along the principal directions of the FFN's output, each weighed by the
    sigmoid of its variance over the mean variance. With `heads`, key-value groups of attention are
    scored too: minus the similarity of the output without the group to the whole output. `search`
    is the published search for groups that go well together, `recovery` the regression.
    """

    needs = ("inputs",)
    options: ClassVar[Mapping[str, Any]] = {"heads": False}
    heads: bool

    def covers(self, layer: Layer) -> bool:
        return layer.window is None

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"inputs": Read("input", Moments)}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(rows * input_norms(found), dim=1)
        return norms

    def reads_of(self, model: ModelWrapper, unit: Units) -> dict[str, dict[str, Read]]:
        if unit.site == "heads":
            return {unit.name: {"inputs": Read("input", CoMoments)}}
        found = super().reads_of(model, unit)
        if unit.site == "input":
            found[unit.name] = {
                "inputs": Read("input", Moments),
                "outputs": Read("output", CoMoments),
            }
        return found

    def rate_units(
        self, found: Mapping[str, Mapping[str, Any]], model: ModelWrapper, unit: Units
    ) -> Tensor:
        if unit.site == "output":
            return super().rate_units(found, model, unit)
        if unit.site == "heads":
            rows = rows_of(model, unit.name)
            return -similarity_without(output_shares(rows, found[unit.name]["inputs"], unit.size))
        down, columns = found[unit.name], rows_of(model, unit.name).T
        directions, weights = direction_weights(down["outputs"].m2)
        along = (columns @ directions).abs() * weights
        own = (along * input_norms(down)[:, None]).norm(dim=1)
        return sum_of([super().rate_units(found, model, unit), own])

    def search(
        self, model: Any, masks: Mapping[str, Tensor], batches: Iterable[Any]
    ) -> dict[str, Tensor]:
        """Return the masks with key-value groups exchanged where that keeps the output more alike.

        Every layer keeps as many; masks of units are returned as they are. Nothing is written.
        """
        wrapper, found = self._input_moments(model, masks, batches)
        better = dict(masks)
        for name, keep in masks.items():
            if site_of(wrapper, name, len(keep)) == "heads":
                shares = output_shares(rows_of(wrapper, name), found[name], len(keep))
                better[name] = searched(shares, keep)
        return better

    def recovery(
        self, model: Any, masks: Mapping[str, Tensor], batches: Iterable[Any]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what to multiply each row of the layer by, and the new bias, each `(channels,)`.

        The straight line that comes closest to the unpruned output, channel by channel, over the
        batches. `masks` are True for kept units, by down projection, or kept key-value groups, by
        output projection. Nothing is written.
        """
        wrapper, found = self._input_moments(model, masks, batches)
        recovered = {}
        for name, keep in masks.items():
            if site_of(wrapper, name, len(keep)) == "heads":
                keep = inputs_of_groups(keep, wrapper.layers[name])
            rows, bias = rows_of(wrapper, name), _bias(wrapper, name)
            recovered[name] = linear_recovery(rows, found[name], keep, bias)
        return recovered

    def _input_moments(
        self, model: Any, names: Iterable[str], batches: Iterable[Any]
    ) -> tuple[ModelWrapper, dict[str, CoMoments]]:
        wrapper = wrap(model)
        batches = self._batches(wrapper, batches)
        wanted = {name: {"inputs": Read("input", CoMoments)} for name in names}
        found = measure(wrapper, wanted, batches)
        return wrapper, {name: statistics["inputs"] for name, statistics in found.items()}


def direction_weights(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return principal directions as columns, and their weights: sigmoid(variance / mean)."""
    variances, directions = torch.linalg.eigh(covariance)
    variances = variances.abs()
    mean = variances.mean()
    return directions, (variances / mean if float(mean) > 0 else variances).sigmoid()


def linear_recovery(
    rows: Tensor, moments: CoMoments, keep: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return slope and intercept, each `(channels,)`, of the whole output by that of kept units.

    A channel that kept units do not move has slope 1. Raises ShapeError for a mask of other units.
    """
    if keep.shape != moments.mean.shape:
        raise ShapeError(f"a mask of shape {tuple(keep.shape)} for {len(moments.mean)} units")
    rows, kept = wide(rows), wide(rows).masked_fill(~keep.to(rows.device), 0)
    seen = kept @ moments.m2
    spread, shared = (seen * kept).sum(1), (seen * rows).sum(1)
    slope = torch.where(spread > 0, shared / spread, 1)
    intercept = rows @ moments.mean - slope * (kept @ moments.mean)
    return slope, intercept if bias is None else intercept + wide(bias)


def _bias(model: ModelWrapper, name: str) -> Tensor | None:
    bias = model.torch_module(name).bias
    return bias.detach() if isinstance(bias, Tensor) else None


@register_distribution("slimllm", options=("similarity", "alpha"))
def slimllm(budget: Budget) -> dict[str, float]:
    """Return what layers lose when those whose output is most like their input lose most.

    `similarity` is `{layer: mean cosine of the block's input and output}`, `alpha` the softmax's
    sharpness, 10 as published.
    """
    given, alpha = budget.option("similarity"), float(budget.option("alpha", 10.0))
    missing = [name for name in budget.sizes if name not in (given or {})]
    if missing:
        raise InvalidValueError(f"similarity has no number of layer {missing[0]!r}")
    powers = {name: math.exp(alpha * given[name]) for name in budget.sizes}
    whole = budget.amount * len(powers) / sum(powers.values())
    return {name: whole * powers[name] * size for name, size in budget.sizes.items()}
