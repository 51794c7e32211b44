"""The distributions of a budget: what each layer should lose, before bounds and rounding."""

from __future__ import annotations

import torch

from nodelens.pruning.distributions import Budget, register_distribution
from nodelens.pruning.masks import removed_count

__all__ = ["global_threshold", "uniform"]


@register_distribution("uniform")
def uniform(budget: Budget) -> dict[str, float]:
    """Return floor(amount * n) of every layer."""
    return {name: removed_count(budget.amount, n) for name, n in budget.sizes.items()}


@register_distribution("global_threshold")
def global_threshold(budget: Budget) -> dict[str, float]:
    """Return what falls below one threshold over all layers: the lowest scores, wherever."""
    return _pooled(budget, {name: order.flatten() for name, order in budget.order.items()})


def _pooled(budget: Budget, order: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return how many of each layer are among the lowest of all, every layer within its bounds."""
    names = list(order)
    lowest = {name: torch.sort(order[name], stable=True).values for name in names}
    counts: dict[str, float] = {name: budget.least[name] for name in names}
    free = {name: lowest[name][budget.least[name] : budget.most[name]] for name in names}
    pool = torch.cat([free[name] for name in names])
    owner = torch.repeat_interleave(torch.tensor([len(free[name]) for name in names]))
    taken = owner[torch.argsort(pool, stable=True)[: budget.total - int(sum(counts.values()))]]
    for number, name in enumerate(names):
        counts[name] += int((taken == number).sum())
    return counts
