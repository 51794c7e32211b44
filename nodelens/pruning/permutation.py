"""Which input channels to lay side by side, so that an N:M pattern costs the least importance."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.errors import ShapeError

__all__ = ["channel_permutation"]


def channel_permutation(scores: Tensor, nm: tuple[int, int]) -> Tensor:
    """Return an order of the columns of `(channels, width)` scores, `(width,)`, for `nm` patterns.

    First columns are dealt out to the groups of m by their sums, there and back; then, slot by
    slot, one column of every group is taken out and put where the n best of every m add up to the
    most, a linear sum assignment (Zhang and others 2024, section 4). It never keeps less than the
    order that was given. Raises ShapeError when the width is not a multiple of m.

    >>> channel_permutation(torch.tensor([[4.0, 3.0, 1.0, 2.0]]), (1, 2)).view(2, 2).tolist()
    [[0, 2], [1, 3]]
    """
    n, m = nm
    width = scores.shape[1]
    if width % m:
        raise ShapeError(f"rows of {width} weights do not divide into groups of {m}")
    given = torch.arange(width).view(-1, m)
    groups = scores.sum(0).argsort(descending=True, stable=True).view(m, -1)
    groups[1::2] = groups[1::2].flip(1)
    groups = groups.T.contiguous()
    for slot in range(m):
        groups[:, slot] = _assigned(scores, groups, slot, n)
    better = _kept(scores, groups, n) > _kept(scores, given, n)
    return (groups if better else given).flatten()


def _assigned(scores: Tensor, groups: Tensor, slot: int, n: int) -> Tensor:
    """Which of the slot's columns goes best to which group, `(groups,)`."""
    from scipy.optimize import linear_sum_assignment

    columns = groups[:, slot]
    others = torch.cat([groups[:, :slot], groups[:, slot + 1 :]], dim=1)
    # A column takes the place of the n-th best of the others where it is above it.
    last = scores[:, others].topk(n, dim=2).values[..., -1]
    gains = [(scores[:, columns] - least[:, None]).clamp(min=0).sum(0) for least in last.T]
    _, chosen = linear_sum_assignment(torch.stack(gains).numpy(), maximize=True)
    return columns[torch.from_numpy(chosen)]


def _kept(scores: Tensor, groups: Tensor, n: int) -> float:
    return float(scores[:, groups].topk(n, dim=2).values.sum())
