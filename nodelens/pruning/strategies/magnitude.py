"""Scores from the size of weights alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from nodelens.errors import InvalidValueError
from nodelens.model import ModelWrapper
from nodelens.model.layers import weight_rows
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import weight_of
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategy import Strategy

__all__ = ["AdaptiveSensitivity", "GlobalMagnitude", "IterativeMagnitude", "Magnitude"]


@register_strategy("magnitude", paper="Han et al. (2015), Learning both weights and connections")
class Magnitude(Strategy):
    """Norm of a channel's weights, `norm` 1 or 2; single weights by their absolute value.

    Of an FFN's unit it is the norm of its rows in gate and up and of its column in down together.
    """

    unit = "both"
    options: ClassVar[Mapping[str, Any]] = {"norm": 2}
    norm: int

    def _check(self) -> None:
        super()._check()
        if self.norm not in (1, 2):
            raise InvalidValueError(f"norm is {self.norm!r}, expected 1 or 2")

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        weight = weight_of(layer)
        if self.of_weights:
            return weight.abs().double()
        return self._norm(weight_rows(layer))

    def _scores(self, run: Run) -> dict[str, Tensor]:
        if self.of_weights:
            return super()._scores(run)
        return {name: self._norm(unit.weights(run.model)) for name, unit in run.units.items()}

    def _norm(self, rows: Tensor) -> Tensor:
        sizes: Tensor = rows.double().norm(p=self.norm, dim=1)
        return sizes


@register_strategy("iterative_magnitude", paper="Han et al. (2015)")
class IterativeMagnitude(Magnitude):
    """Magnitude taken up in several steps: give a schedule, and score anew between the steps."""


@register_strategy("global_magnitude", aliases=("global_pruning",))
class GlobalMagnitude(Magnitude):
    """Magnitude with one threshold over all layers scored, never norms or embeddings."""

    default_distribution = "global_threshold"


@register_strategy("adaptive_sensitivity")
class AdaptiveSensitivity(Magnitude):
    """Magnitude, with a part of each layer that falls with what the loss feels of it.

    `masks` takes `sensitivity={layer: loss change}`, which `budget_options` measures on batches.
    """

    default_distribution = "adaptive_sensitivity"
    needs = ("loss",)

    def _batches(self, model: ModelWrapper, batches: Iterable[Any] | None) -> Iterable[Any]:
        return [] if batches is None else super()._batches(model, batches)
