"""FPGM: filters near the geometric median of their layer go, the others can stand in for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodelens.model.layers import weight_rows
from nodelens.pruning.given import Tensors
from nodelens.pruning.masks import weight_of
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategy import Strategy
from nodelens.statistics import wide

__all__ = ["Fpgm", "distance_sums"]

_AT_ONCE = 512


@register_strategy(
    "fpgm",
    aliases=("geometric_median",),
    paper="He, Liu, Wang, Hu and Yang (2019), Filter pruning via geometric median for deep "
    "convolutional neural networks acceleration, CVPR",
)
class Fpgm(Strategy):
    """Sum of the Euclidean distances of a channel's weight row to all rows of its layer."""

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        weight_of(layer)
        return distance_sums(wide(weight_rows(layer)))


def distance_sums(rows: Tensor) -> Tensor:
    """Return the sum of each row's distances to all rows, `(channels,)`.

    >>> distance_sums(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
    tensor([ 5., 10.,  5.], dtype=torch.float64)
    """
    # Centred, and by matrix products: twenty times faster, and good to 1e-8 of the rows' size.
    rows = rows - rows.mean(0)
    mode = "use_mm_for_euclid_dist"
    parts = [torch.cdist(some, rows, compute_mode=mode).sum(1) for some in rows.split(_AT_ONCE)]
    return torch.cat(parts)
