"""CHIP: channels that the others of an image do not make up for are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics
from nodelens.statistics import ChannelIndependence, Read

__all__ = ["Chip"]


@register_strategy(
    "chip",
    paper="Sui, Yin, Xie, Phan, Zonouz and Yuan (2021), CHIP: channel independence-based pruning "
    "for compact neural networks, NeurIPS",
)
class Chip(OfStatistics):
    """Mean over images of the nuclear norm that goes with a channel's feature map.

    Maps are those behind the norm that follows and a ReLU.
    """

    needs = ("inputs",)

    def covers(self, layer: Layer) -> bool:
        return layer.window is not None and len(layer.window.kernel) == 2

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"maps": Read("output", ChannelIndependence, view="feature_maps")}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        independence: Tensor = found["maps"].mean()
        return independence
