"""Which other channels a channel is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drawn_partners", "nearest_partners", "partner_draws"]


def nearest_partners(rho: Tensor, most: int, start: int = 0) -> Tensor:
    """Return the columns with the largest abs(rho), `(rows, most)`, or all others if fewer.

    `rho` is `(channels, channels)` or a block of its rows from `start`.
    """
    size = rho.abs()
    size.diagonal(start).fill_(-1)
    return size.topk(min(most, rho.shape[1] - 1), dim=1).indices


def partner_draws(seed: int, channels: int, start: int = 0) -> torch.Generator:
    """Return what partners are drawn with, past the channels before `start`."""
    draws = torch.Generator().manual_seed(seed)
    for _ in range(start):
        torch.rand(channels, generator=draws, dtype=torch.float64)
    return draws


def drawn_partners(shape: torch.Size, most: int, start: int, draws: torch.Generator) -> Tensor:
    """Return columns drawn at random without the channel itself, `(rows, most)`.

    A row of `draws` is drawn for every channel in order, so that a block, from `start`, has the
    partners that the whole would have; blocks are asked for one after the other.
    """
    order = torch.rand(shape, generator=draws, dtype=torch.float64)
    order.diagonal(start).fill_(-1)
    return order.topk(min(most, shape[1] - 1), dim=1).indices
