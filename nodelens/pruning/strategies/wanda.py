"""Wanda: the size of a weight times the norm of what it meets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfWeightStatistics, per_weight

__all__ = ["Wanda", "input_norms"]


@register_strategy(
    "wanda",
    paper="Sun, Liu, Bair and Kolter (2024), A simple and effective pruning approach for large "
    "language models, ICLR",
)
class Wanda(OfWeightStatistics):
    """Absolute weight times the L2 norm of its input over all tokens, |W_ij| ||X_j||_2.

    Weights compete within their row, as published, also N:M with `nm=(2, 4)`.
    """

    per_row = True

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        return rows.abs() * per_weight(input_norms(found), layer)


def input_norms(found: Mapping[str, Any]) -> Tensor:
    """Return the L2 norm of everything each weight meets, over all rows, `(width,)`."""
    moments = found["inputs"]
    norms: Tensor = (moments.mean_square() * moments.rows).sqrt()
    return norms
