"""FLAP: units that hardly fluctuate go, and a bias stands in for their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError, TooFewRowsError
from nodelens.model import ModelWrapper, wrap
from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import (
    OfWeightStatistics,
    measure,
    per_weight,
    rows_of,
)
from nodelens.pruning.units import Units, inputs_of_groups, prunable, site_of
from nodelens.statistics import Mean, Read, wide

__all__ = ["Flap", "standardised"]


@register_strategy(
    "flap",
    paper="An, Zhao, Yu, Tang and Wang (2024), Fluctuation-based adaptive structured pruning for "
    "large language models, AAAI",
)
class Flap(OfWeightStatistics):
    """Variance of an input channel times the squared norm of its column of weights.

    With `standardize` (as published) every layer's scores have mean 0 and standard deviation 1, so
    that layers can be compared; the budget is then one threshold over all layers.
    `compensation` gives the bias that takes the place of the removed units' mean. With `heads`,
    key-value groups of attention are scored too, with the mean over the channels of their heads,
    and the threshold is set by weights, of which a group has more than an FFN's unit.
    """

    unit = "channels"
    default_distribution = "global_threshold"
    options: ClassVar[Mapping[str, Any]] = {"standardize": True, "heads": False}
    standardize: bool
    heads: bool

    @property
    def distribution(self) -> str:
        """Return how a budget is shared out: with `heads`, over the weights that units have."""
        given = super().distribution
        return "flap" if self.heads and self.config.distribution == "uniform" else given

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        if found["inputs"].rows < 2:
            raise TooFewRowsError("one row seen, expected at least 2 to see a fluctuation")
        return rows.square() * per_weight(found["inputs"].variance(), layer)

    def rate_units(
        self, found: Mapping[str, Mapping[str, Any]], model: ModelWrapper, unit: Units
    ) -> Tensor:
        if unit.site != "heads":
            return super().rate_units(found, model, unit)
        columns = self._rated(found[unit.name], model, unit.name).sum(0)
        return self.finished(columns).view(unit.size, -1).mean(1)

    def finished(self, scores: Tensor) -> Tensor:
        return standardised(scores) if self.standardize else scores

    def means(
        self,
        model: Any,
        batches: Iterable[Any],
        *,
        layers: Sequence[str] | str | None = None,
        pattern: str | None = None,
    ) -> dict[str, Tensor]:
        """Return the mean of what every FFN's down projection takes in, `(units,)` a layer.

        With `heads`, of what output projections take in too, `(inputs,)`. Silencing units with
        `value=means, site="input"` is the same as removing them and adding `compensation` to the
        bias.
        """
        wrapper = wrap(model)
        batches = self._batches(wrapper, batches)
        units = prunable(wrapper, layers, pattern, heads=self.heads).values()
        wanted = {u.name: {"mean": Read("input", Mean)} for u in units if u.site != "output"}
        if not wanted:
            raise InvalidValueError("no FFN among the layers, whose units would have a mean")
        found = measure(wrapper, wanted, batches)
        return {name: statistics["mean"].mean() for name, statistics in found.items()}

    def compensation(
        self, model: Any, masks: Mapping[str, Tensor], means: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what to add to each down projection's bias, `(channels,)`: W_removed mean(x).

        `masks` are True for kept units, or kept key-value groups. Nothing is written.
        """
        wrapper, found = wrap(model), {}
        for name, keep in masks.items():
            rows, mean = rows_of(wrapper, name), means.get(name)
            if site_of(wrapper, name, len(keep)) == "heads":
                keep = inputs_of_groups(keep, wrapper.layers[name])
            if mean is None or keep.shape != mean.shape or len(keep) != rows.shape[1]:
                raise ShapeError(
                    f"layer {name!r}: a mask of shape {tuple(keep.shape)}, expected one of "
                    f"{rows.shape[1]} units, and as many means"
                )
            found[name] = rows @ wide(mean.to(rows.device)).masked_fill(keep.to(rows.device), 0)
        return found


def standardised(scores: Tensor) -> Tensor:
    """Return scores less their mean, in standard deviations (n - 1); zeros where they are equal.

    >>> standardised(torch.tensor([1.0, 2.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    centred = scores - scores.mean()
    spread = centred.square().sum().div(max(len(scores) - 1, 1)).sqrt()
    return centred / spread if float(spread) > 0 else torch.zeros_like(scores)
