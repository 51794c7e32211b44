"""Scores drawn by chance: the controls of every comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import as_rows, generator_for, weight_of
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategy import Strategy
from nodelens.pruning.units import Units

__all__ = ["Bernoulli", "LayerwiseRandom", "Random"]


@register_strategy("random")
class Random(Strategy):
    """Uniform numbers from a generator of the layer's own, seeded by `seed` and its name."""

    unit = "both"

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        return self._drawn(layer, "", None)

    def _scores(self, run: Run) -> dict[str, Tensor]:
        return {
            name: self._drawn(run.model.torch_module(name), name, unit)
            for name, unit in run.units.items()
        }

    def _drawn(self, layer: nn.Module, name: str, unit: Units | None) -> Tensor:
        weight = weight_of(layer)
        if self.of_weights:
            return self._draw(weight.shape, name)
        size = len(as_rows(layer, weight)) if unit is None else unit.size
        return self._draw(torch.Size([size]), name)

    def _draw(self, shape: torch.Size, name: str) -> Tensor:
        return torch.rand(
            shape, generator=generator_for(self.config.seed, name), dtype=torch.float64
        )


@register_strategy("layerwise_random")
class LayerwiseRandom(Random):
    """Random, and of every layer the same part, whatever the config's distribution is."""

    @property
    def distribution(self) -> str:
        return "uniform"


@register_strategy("bernoulli")
class Bernoulli(Random):
    """A coin for every unit, 1 (kept) with probability 1 - amount.

    Between units of one side of the coin a second draw decides, so the count is still exact.
    """

    def _draw(self, shape: torch.Size, name: str) -> Tensor:
        drawn = torch.rand(
            (2, *shape), generator=generator_for(self.config.seed, name), dtype=torch.float64
        )
        return (drawn[0] >= self.config.amount).double() + drawn[1]
