"""SlimLLM's choice of heads: those without which the attention's output stays most like itself."""

from __future__ import annotations

import torch
from torch import Tensor

from nodelens.statistics import CoMoments, wide

__all__ = ["output_shares", "output_similarity", "searched", "similarity_without"]


def output_shares(rows: Tensor, moments: CoMoments, groups: int) -> Tensor:
    """Return co-moments `(channels, groups, groups)` of what the groups add to every output.

    `rows` are the output projection's, `(channels, inputs)`, `moments` those of its inputs. All
    that follows is made of these: no activation is needed again.
    """
    by_group = wide(rows).view(len(rows), groups, -1)
    sides = moments.m2.to(rows.device).view(groups, by_group.shape[2], -1)
    seen = [
        ((by_group[:, g] @ sides[g]).view_as(by_group) * by_group).sum(2) for g in range(groups)
    ]
    return torch.stack(seen, dim=1)


def output_similarity(shares: Tensor, kept: Tensor) -> float:
    """Return the sum over channels of |Pearson| between the output and that of `kept` groups.

    A channel that one of the two leaves constant adds nothing.
    """
    chosen = kept.to(shares)
    own, whole = shares @ chosen @ chosen, shares.sum((1, 2))
    spread = (own.clamp_min(0) * whole.clamp_min(0)).sqrt()
    shared = (shares.sum(2) @ chosen).abs()
    return float(torch.where(spread > 0, shared / spread, 0).sum())


def similarity_without(shares: Tensor) -> Tensor:
    """Return the similarity that is left without each group, `(groups,)`."""
    others = ~torch.eye(shares.shape[1], dtype=torch.bool)
    return torch.tensor([output_similarity(shares, kept) for kept in others], dtype=torch.float64)


def searched(shares: Tensor, keep: Tensor) -> Tensor:
    """Return a mask of as many groups, by the published greedy search from `keep`.

    Each removed group in turn, the least important first, takes the place of the kept one whose
    exchange raises the similarity most, if any does.
    """
    order = similarity_without(shares).argsort(descending=True, stable=True).tolist()
    best, keep = output_similarity(shares, keep), keep.clone()
    for candidate in [g for g in order if not keep[g]]:
        found = keep
        for kept in [g for g in order if keep[g]]:
            trial = keep.clone()
            trial[candidate], trial[kept] = True, False
            similarity = output_similarity(shares, trial)
            if similarity > best:
                best, found = similarity, trial
        keep = found
    return keep
