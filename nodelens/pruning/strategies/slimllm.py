"""SlimLLM: units by the directions of the output they feed, and a linear regression behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.model import ModelWrapper, wrap
from nodelens.model.layers import Layer
from nodelens.pruning.distributions import Budget, register_distribution
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics, measure, rows_of, sum_of
from nodelens.pruning.strategies.wanda import input_norms
from nodelens.pruning.units import Units
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
    sigmoid of its variance over the mean variance. `recovery` gives the regression published with
    it. Heads, which it prunes by the correlation of outputs, are not pruned here.
    """

    needs = ("inputs",)

    def covers(self, layer: Layer) -> bool:
        return layer.window is None

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"inputs": Read("input", Moments)}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(rows * input_norms(found), dim=1)
        return norms

    def reads_of(self, model: ModelWrapper, unit: Units) -> dict[str, dict[str, Read]]:
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
        down, columns = found[unit.name], rows_of(model, unit.name).T
        directions, weights = direction_weights(down["outputs"].m2)
        along = (columns @ directions).abs() * weights
        own = (along * input_norms(down)[:, None]).norm(dim=1)
        return sum_of([super().rate_units(found, model, unit), own])

    def recovery(
        self, model: Any, masks: Mapping[str, Tensor], batches: Iterable[Any]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what to multiply each kept row of down by, and the new bias, each `(channels,)`.

        The straight line that comes closest to the unpruned output, channel by channel, over the
        batches. `masks` are True for kept units, by down projection. Nothing is written.
        """
        wrapper = wrap(model)
        batches = self._batches(wrapper, batches)
        wanted = {name: {"inputs": Read("input", CoMoments)} for name in masks}
        found = measure(wrapper, wanted, batches)
        return {
            name: linear_recovery(
                rows_of(wrapper, name), found[name]["inputs"], keep, _bias(wrapper, name)
            )
            for name, keep in masks.items()
        }


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
