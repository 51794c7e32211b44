"""Information from joint counts, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["binned_information", "joined_bins"]


def joined_bins(counts: Tensor, bins: int, strategy: str, used: Tensor) -> Tensor:
    """Return into which of at most `bins` bins each fine one goes, `(columns, fine bins)`.

    `counts` are those of the fine bins, `(columns, fine bins)`, of which the first `used` lie in
    the range. "quantile" puts each where the middle of its ranks lies, so that bins hold about
    equal numbers of rows; "uniform" where its middle lies in the range.
    """
    if strategy == "quantile":
        middle = 2 * counts.cumsum(1) - counts
        whole = 2 * counts.sum(1, keepdim=True)
    else:
        middle = (2 * torch.arange(counts.shape[1], device=counts.device) + 1).expand_as(counts)
        whole = 2 * used[:, None]
    return (middle * bins // whole.clamp(min=1)).clamp(max=bins - 1)


def binned_information(counts: Tensor, corrected: bool = True) -> Tensor:
    """Return the mutual information of tables `(..., rows, columns)`, shape `(...)`, in nats.

    `corrected` after Miller (1955): each entropy gains half of (cells in use - 1) over n.
    """
    n = counts.sum((-2, -1))
    sides = counts.sum(-1), counts.sum(-2)
    found = -_entropy(counts.flatten(-2), n)
    cells = -(counts > 0).sum((-2, -1)) - 1
    for side in sides:
        found = found + _entropy(side, n)
        cells = cells + (side > 0).sum(-1)
    return found + cells / (2 * n.clamp(min=1)).double() if corrected else found


def _entropy(counts: Tensor, n: Tensor) -> Tensor:
    share = counts.double() / n.clamp(min=1)[..., None]
    return -torch.xlogy(share, share).sum(-1)
