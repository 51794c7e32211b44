"""HRank: filters whose feature maps are of high rank are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics
from nodelens.statistics import MapRanks, Read

__all__ = ["HRank"]


@register_strategy(
    "hrank",
    paper="Lin, Ji, Wang, Zhang, Zhang, Tian and Shao (2020), HRank: filter pruning using "
    "high-rank feature map, CVPR",
)
class HRank(OfStatistics):
    """Mean rank of a channel's feature map over images, behind the norm that follows and a ReLU."""

    needs = ("inputs",)

    def covers(self, layer: Layer) -> bool:
        return layer.window is not None and len(layer.window.kernel) == 2

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"maps": Read("output", MapRanks, view="feature_maps")}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        ranks: Tensor = found["maps"].mean()
        return ranks
