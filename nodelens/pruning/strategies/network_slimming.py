"""Network slimming: channels that their BatchNorm scales down go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import IncompatibleModelError
from nodelens.model import ModelWrapper
from nodelens.model.layers import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfStatistics
from nodelens.statistics import Read, RowNorms

__all__ = ["NetworkSlimming", "scale_penalty"]


@register_strategy(
    "network_slimming",
    paper="Liu, Li, Shen, Huang, Yan and Zhang (2017), Learning efficient convolutional networks "
    "through network slimming, ICCV",
)
class NetworkSlimming(OfStatistics):
    """Size of the scale that the BatchNorm behind a layer gives a channel, |gamma|.

    What the lens `bn_scale` measures; one threshold over all layers, as published. It means
    something where the scales were held down in training: see `scale_penalty`.
    """

    default_distribution = "global_threshold"

    def covers(self, layer: Layer) -> bool:
        return layer.scaled

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"scale": Read("weight", RowNorms, view="norm")}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        scale: Tensor = found["scale"].l1
        return scale

    def _batches(self, model: ModelWrapper, batches: Iterable[Any] | None) -> Iterable[Any]:
        if batches is None and model.known_route() is None:
            raise IncompatibleModelError(
                "no batch was given, and only a pass shows which BatchNorm follows which layer"
            )
        return super()._batches(model, batches)


def scale_penalty(model: nn.Module, strength: float = 1e-4) -> Tensor:
    """Return `strength` times the sum of |gamma| of all BatchNorms, `()`: to add to a loss.

    What makes scales of channels that are not needed small in training (Liu et al., 2017).
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    scales = [norm.weight.abs().sum() for norm in norms if norm.weight is not None]
    if not scales:
        raise IncompatibleModelError(f"a {type(model).__name__} has no BatchNorm with a scale")
    return strength * torch.stack(scales).sum()
