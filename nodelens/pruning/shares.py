"""The distributions of a budget: what each layer should lose, before bounds and rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, nearest
from nodelens.pruning.distributions import Budget, register_distribution
from nodelens.pruning.masks import removed_count

__all__ = [
    "adaptive_sensitivity",
    "cascading",
    "flap",
    "global_knapsack",
    "global_threshold",
    "hybrid",
    "importance_weighted",
    "size_proportional",
    "uniform",
]


@register_distribution("uniform")
def uniform(budget: Budget) -> dict[str, float]:
    """Return floor(amount * n) of every layer."""
    return {name: removed_count(budget.amount, n) for name, n in budget.sizes.items()}


@register_distribution("global_threshold")
def global_threshold(budget: Budget) -> dict[str, float]:
    """Return what falls below one threshold over all layers: the lowest scores, wherever."""
    return _pooled(budget, budget.order)


def _weighed(budget: Budget) -> int:
    """Return how many of the lowest units have, together, no more than the amount of the weights.

    Raises InvalidValueError where the layers' bounds leave room for another unit and forbid it.
    """
    costs = torch.tensor([budget.costs[name] for name in budget.sizes])
    sizes = torch.tensor(list(budget.sizes.values()))
    least = torch.tensor(list(budget.least.values()))
    wanted = budget.amount * int(sizes @ costs) * (1 + 1e-12) - int(least @ costs)
    room = costs[_lowest(budget, budget.order)].cumsum(0)
    found = int((room <= wanted).sum())
    if wanted < 0 or (found == len(room) and wanted >= int(room[-1:].sum() + costs.min())):
        raise InvalidValueError(
            f"amount {budget.amount} of {int(sizes @ costs)} weights cannot be met: the layers can "
            f"lose {int(least @ costs)} at least and {int(least @ costs + room[-1:].sum())} at "
            "most (min_amount, max_amount, min_keep, protected channels)"
        )
    return int(least.sum()) + found


@register_distribution("flap", total=_weighed)
def flap(budget: Budget) -> dict[str, float]:
    """Return what falls below one threshold over all layers, set so that weights meet the amount.

    A unit counts as many times as it has weights, as FLAP counts a head for 512 / 3 units of an
    FFN (heads of 128 channels). Of units that have equally many it is the global threshold.
    """
    return _pooled(budget, budget.order)


@register_distribution("global_knapsack")
def global_knapsack(budget: Budget) -> dict[str, float]:
    """Return what falls below one threshold on score per weight: dear units of little use go.

    The budget still counts units; a unit's cost is how many weights it has.
    """
    costs = budget.costs
    return _pooled(budget, {name: order / costs[name] for name, order in budget.order.items()})


@register_distribution("size_proportional")
def size_proportional(budget: Budget) -> dict[str, float]:
    """Return shares in proportion to the weights of each layer, as far as it has units."""
    return _scaled(budget, {name: n * budget.costs[name] for name, n in budget.sizes.items()})


@register_distribution("importance_weighted")
def importance_weighted(budget: Budget) -> dict[str, float]:
    """Return parts that fall with the mean rank of a layer's units among those of all layers.

    Ranks, so that no scale or sign of the scores matters.
    """
    pool = torch.cat([order.flatten() for order in budget.order.values()])
    ranks = torch.empty_like(pool)
    ranks[torch.argsort(pool, stable=True)] = torch.arange(len(pool), dtype=pool.dtype)
    parts = (ranks / max(len(pool) - 1, 1)).split(list(budget.sizes.values()))
    means = {name: float(part.mean()) for name, part in zip(budget.sizes, parts, strict=True)}
    return _scaled(budget, {name: n * (1 - means[name]) for name, n in budget.sizes.items()})


@register_distribution("cascading", options=("slope",))
def cascading(budget: Budget) -> dict[str, float]:
    """Return parts that grow evenly from the first layer to the last.

    From 1 - `slope` to 1 + `slope` of the mean part, `slope` from 0 to 1, 0.5 unless given.
    """
    slope = _part(budget, "slope", 0.5)
    last = max(len(budget.sizes) - 1, 1)
    return _scaled(
        budget,
        {
            name: size * (1 - slope + 2 * slope * depth / last)
            for depth, (name, size) in enumerate(budget.sizes.items())
        },
    )


@register_distribution("hybrid", options=("mix",))
def hybrid(budget: Budget) -> dict[str, float]:
    """Return `mix` of the uniform shares and the rest of the global threshold's; 0.5 by default."""
    mix = _part(budget, "mix", 0.5)
    even, pooled = uniform(budget), global_threshold(budget)
    return {name: mix * even[name] + (1 - mix) * pooled[name] for name in budget.sizes}


@register_distribution("adaptive_sensitivity", options=("sensitivity",))
def adaptive_sensitivity(budget: Budget) -> dict[str, float]:
    """Return parts that fall with a layer's measured `sensitivity`, `{layer: loss change}`.

    The part is in proportion to 1 / (1 + s / mean s); a layer whose loss falls counts as 0.
    """
    given = budget.option("sensitivity")
    if not isinstance(given, Mapping):
        raise InvalidValueError(
            "adaptive_sensitivity needs sensitivity={layer: loss change}; measure_sensitivity "
            "gives it"
        )
    felt = {name: _sensitivity(given, name) for name in budget.sizes}
    mean = sum(felt.values()) / len(felt)
    parts = {name: 1 / (1 + s / mean) if mean else 1.0 for name, s in felt.items()}
    return _scaled(budget, {name: n * parts[name] for name, n in budget.sizes.items()})


def _sensitivity(given: Mapping[str, float], name: str) -> float:
    if name not in given:
        raise InvalidValueError(f"sensitivity lacks layer {name!r}{nearest(name, given)}")
    value = float(given[name])
    if not math.isfinite(value):
        raise InvalidValueError(f"the sensitivity of layer {name!r} is {value}, expected a number")
    return max(value, 0.0)


def _scaled(budget: Budget, shares: Mapping[str, float]) -> dict[str, float]:
    """Return shares that sum to the total; the same part of every layer where all are zero."""
    whole = sum(shares.values())
    if not whole:
        shares, whole = dict(budget.sizes), sum(budget.sizes.values())
    return {name: budget.total * share / whole for name, share in shares.items()}


def _pooled(budget: Budget, order: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how many of each layer are among the lowest of all, every layer within its bounds."""
    taken = _lowest(budget, order)[: budget.total - sum(budget.least.values())]
    found = torch.bincount(taken, minlength=len(order)).tolist()
    return {name: budget.least[name] + n for name, n in zip(order, found, strict=True)}


def _lowest(budget: Budget, order: Mapping[str, Tensor]) -> Tensor:
    """Return the number of the layer of each unit that may go beyond `least`, the lowest first."""
    lowest = {
        name: torch.sort(values.flatten(), stable=True).values for name, values in order.items()
    }
    free = [lowest[name][budget.least[name] : budget.most[name]] for name in order]
    owner = torch.repeat_interleave(torch.tensor([len(values) for values in free]))
    return owner[torch.argsort(torch.cat(free), stable=True)]


def _part(budget: Budget, name: str, default: float) -> float:
    value = budget.option(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidValueError(f"{name} is {value!r}, expected a number from 0 to 1")
    return float(value)
