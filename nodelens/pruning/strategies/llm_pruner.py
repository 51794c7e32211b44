"""LLM-Pruner: first-order Taylor importance of all the weights that go with a unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, MissingLossError, nearest
from nodelens.model import ModelWrapper
from nodelens.model.layers import Layer
from nodelens.pruning.given import Tensors
from nodelens.pruning.masks import as_rows
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics, rows_of
from nodelens.pruning.units import Units
from nodelens.reading import located
from nodelens.statistics import Read, WeightUpdates, wide

__all__ = ["LlmPruner", "taylor"]

LEVELS = ("element", "vector")
REDUCTIONS = ("sum", "prod", "max", "last")


@register_strategy(
    "llm_pruner",
    paper="Ma, Fang and Wang (2023), LLM-Pruner: on the structural pruning of large language "
    "models, NeurIPS",
)
class LlmPruner(OfStatistics):
    """Weights times their loss gradients, over the rows and the column that make up a unit.

    `level="element"` adds up |w g| of single weights, "vector" takes the size of the sum of w g of
    a row or column. `reduction` puts together what gate, up and down say of a unit: "sum" as
    published, "prod", "max", or "last", that of the down projection alone.
    """

    needs = ("inputs", "loss")
    options: ClassVar[Mapping[str, Any]] = {"level": "element", "reduction": "sum"}
    level: str
    reduction: str

    def _check(self) -> None:
        super()._check()
        for name, valid in (("level", LEVELS), ("reduction", REDUCTIONS)):
            value = getattr(self, name)
            if value not in valid:
                raise InvalidValueError(
                    f"{name} is {value!r}{nearest(str(value), valid)}, "
                    f"expected one of {', '.join(valid)}"
                )

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"updates": Read("output", WeightUpdates)}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        return taylor(rows * found["updates"].gradient, self.level)

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the importance of a layer's rows, `(channels,)`, of the weight's `gradients`.

        Without them, those of the last backward pass in `layer.weight.grad`.
        """
        weight = getattr(layer, "weight", None)
        gradients = getattr(weight, "grad", None) if given.gradients is None else given.gradients
        if gradients is None:
            raise MissingLossError("it needs the loss gradients of the weight: pass gradients=")
        rows = as_rows(layer, weight.detach() if isinstance(weight, Tensor) else weight)
        return taylor(wide(rows) * wide(as_rows(layer, gradients)), self.level)

    def reads_of(self, model: ModelWrapper, unit: Units) -> dict[str, dict[str, Read]]:
        return {name: self.reads(located(model, name)) for name in (*unit.feeders, unit.name)}

    def rate_units(
        self, found: Mapping[str, Mapping[str, Any]], model: ModelWrapper, unit: Units
    ) -> Tensor:
        if unit.site == "output":
            return self._rated(found[unit.name], model, unit.name)
        parts = [self._rated(found[name], model, name) for name in unit.feeders]
        products = rows_of(model, unit.name) * found[unit.name]["updates"].gradient
        parts.append(taylor(products.T, self.level))
        return reduced(torch.stack(parts), self.reduction)


def taylor(products: Tensor, level: str) -> Tensor:
    """Return the importance of every row of weight times gradient, `(channels,)`.

    >>> products = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    >>> taylor(products, "element"), taylor(products, "vector")
    (tensor([2., 3.]), tensor([0., 3.]))
    """
    return products.sum(1).abs() if level == "vector" else products.abs().sum(1)


def reduced(parts: Tensor, reduction: str) -> Tensor:
    """Return one importance a unit of those of its parts, `(parts, units)`; the last is down's."""
    if reduction == "last":
        return parts[-1]
    if reduction == "max":
        return parts.amax(0)
    return parts.prod(0) if reduction == "prod" else parts.sum(0)
