"""Weight rows laid out for products with what the layer takes in."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.model.layers import Layer

__all__ = ["full_rows"]


def full_rows(rows: Tensor, layer: Layer) -> Tensor:
    """Return weight rows over all inputs, with zeros outside each channel's group."""
    if layer.window is None or layer.window.groups == 1:
        return rows
    blocks = rows.unflatten(0, (layer.window.groups, -1))
    spread: Tensor = torch.block_diag(*blocks)
    return spread
