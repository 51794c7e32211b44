"""OutRed: channels whose outputs the others repeat go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodelens.metrics import formulas
from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics
from nodelens.statistics import CoMoments, Read

__all__ = ["OutRed", "output_redundancy"]


@register_strategy("outred")
class OutRed(OfStatistics):
    """Minus the mean squared correlation of a channel's output with those of its layer.

    No publication of this name is known to us: output redundancy as the name says it, near to what
    Ayinde, Inanc and Zurada (2019), Neural Networks, prune by.
    """

    needs = ("inputs",)

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"outputs": Read("output", CoMoments)}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        return -output_redundancy(found["outputs"].m2)


def output_redundancy(products: Tensor) -> Tensor:
    """Return each channel's mean squared correlation with the others, `(channels,)`, in [0, 1].

    `products` `(channels, channels)` are sums of products of deviations. 0 for a constant channel
    and for the only one.
    """
    squares = formulas.correlation(products).square().fill_diagonal_(0)
    return squares.sum(1) / max(len(products) - 1, 1)
