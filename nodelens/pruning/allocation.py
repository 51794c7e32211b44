"""Masks for a whole model: a budget shared out to layers, exactly and within their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, as_tensor

from nodelens.errors import InvalidValueError, LayerNotFoundError, UnknownOptionError, nearest
from nodelens.interventions import known_layers
from nodelens.model import ModelWrapper
from nodelens.pruning.config import PruningConfig, check_amount
from nodelens.pruning.distributions import Budget, get_distribution
from nodelens.pruning.masks import (
    as_rows,
    check_scores,
    generator_for,
    keep_best,
    protected_mask,
    ranked,
    removed_count,
    row_mask,
)
from nodelens.pruning.units import site_of, units_scored

if TYPE_CHECKING:
    from nodelens.pruning.strategy import Strategy

__all__ = ["exact_counts", "masks_of"]


def masks_of(
    strategy: Strategy,
    model: ModelWrapper,
    scores: Mapping[str, Tensor],
    amount: float | None,
    protected: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return the masks of `Strategy.masks`."""
    config = strategy.config
    amount = config.amount if amount is None else check_amount(amount)
    _check_layers(model, scores, protected)
    if not config.structured:
        return _of_weights(strategy, model, scores, amount, protected, options)
    found = {name: _of_channels(strategy, model, name, score) for name, score in scores.items()}
    safe = {n: protected_mask(protected.get(n), len(s), n) for n, s in found.items()}
    costs = {name: units_scored(model, name, len(s)).cost for name, s in found.items()}
    budget = budget_for(config, found, safe, costs, amount, strategy.distribution, options)
    counts = counts_for(budget, strategy.distribution)
    return {name: keep_best(budget.order[name], counts[name], safe[name]) for name in found}


def budget_for(
    config: PruningConfig,
    scores: Mapping[str, Tensor],
    safe: Mapping[str, Tensor],
    costs: Mapping[str, int],
    amount: float,
    distribution: str,
    options: Mapping[str, Any],
) -> Budget:
    """Return the budget of a set of layers: bounds from the config and what is protected."""
    order, least, most = {}, {}, {}
    for name, score in scores.items():
        by_mode = ranked(score, config.pruning_mode, generator_for(config.seed, name))
        order[name] = by_mode.masked_fill(safe[name], math.inf)
        free = score.numel() - max(config.min_keep, int(safe[name].sum()))
        most[name] = max(0, min(free, removed_count(config.max_amount, score.numel())))
        least[name] = math.ceil(config.min_amount * score.numel() - 1e-9)
    sizes = {name: score.numel() for name, score in scores.items()}
    total = removed_count(amount, sum(sizes.values()))
    if distribution == "uniform":
        total = sum(removed_count(amount, n) for n in sizes.values())
    return Budget(scores, order, sizes, costs, least, most, amount, total, options)


def counts_for(budget: Budget, distribution: str) -> dict[str, int]:
    """Return how many units each layer loses under a distribution, by name."""
    rule = get_distribution(distribution)
    for option in budget.options:
        if option not in rule.options:
            raise UnknownOptionError(
                f"distribution {distribution!r} has no option {option!r}"
                f"{nearest(option, rule.options)}; it has {', '.join(rule.options) or 'none'}"
            )
    if rule.total is not None:
        budget = replace(budget, total=rule.total(budget))
    check_feasible(budget)
    return exact_counts(rule.share(budget), budget)


def check_feasible(budget: Budget) -> None:
    """Raise InvalidValueError, with the reason, where the bounds do not allow the total."""
    for name, least in budget.least.items():
        if least > budget.most[name]:
            raise InvalidValueError(
                f"layer {name!r} has to lose {least} of {budget.sizes[name]} units (min_amount) "
                f"and can lose {budget.most[name]} (max_amount, min_keep, protected channels)"
            )
    fewest, all_free = sum(budget.least.values()), sum(budget.most.values())
    if not fewest <= budget.total <= all_free:
        bound, count = ("most", all_free) if budget.total > all_free else ("least", fewest)
        tight = [n for n in budget.sizes if budget.most[n] < budget.amount * budget.sizes[n]]
        where = f": {', '.join(repr(n) for n in tight[:5])}" if bound == "most" else ""
        raise InvalidValueError(
            f"amount {budget.amount} is {budget.total} of {sum(budget.sizes.values())} units, and "
            f"the layers can lose {count} at {bound} (min_amount, max_amount, min_keep, protected "
            f"channels){where}"
        )


def exact_counts(wanted: Mapping[str, float], budget: Budget) -> dict[str, int]:
    """Return whole numbers near `wanted`, within the layers' bounds, that sum to the total.

    Where they do not, every layer's share is shifted by the same part of its size until they do;
    what rounding leaves goes to the largest remainders.
    """
    shares = {name: float(wanted[name]) for name in budget.sizes}
    bad = [name for name, share in shares.items() if not math.isfinite(share)]
    if bad:
        raise InvalidValueError(f"layer {bad[0]!r}: the share is {shares[bad[0]]}, not a number")
    exact = _shifted(shares, budget)
    counts = {name: math.floor(value + 1e-6) for name, value in exact.items()}
    rest = budget.total - sum(counts.values())
    for name in sorted(exact, key=lambda n: counts[n] - exact[n]):
        if rest > 0 and counts[name] < budget.most[name]:
            counts[name] += 1
            rest -= 1
    assert rest == 0, "feasible bounds leave room for what was rounded off"
    return counts


def _shifted(shares: Mapping[str, float], budget: Budget) -> dict[str, float]:
    least, most = budget.least, budget.most

    def at(shift: float) -> dict[str, float]:
        return {
            name: min(max(share + shift * budget.sizes[name], least[name]), most[name])
            for name, share in shares.items()
        }

    if abs(sum(at(0.0).values()) - budget.total) < 1e-6:
        return at(0.0)
    reach = 2 + max((abs(share) / budget.sizes[n] for n, share in shares.items()), default=0)
    low, high = -reach, reach
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) < budget.total else (low, middle)
    return at(high)


def _check_layers(
    model: ModelWrapper, scores: Mapping[str, Tensor], protected: Mapping[str, Any]
) -> None:
    if not scores:
        raise InvalidValueError("there are no scores, expected {layer: scores}")
    known_layers(model, scores)
    for name in protected:
        if name not in scores:
            raise LayerNotFoundError(
                f"protected names layer {name!r}{nearest(name, scores)}, which has no scores"
            )


def _of_channels(strategy: Strategy, model: ModelWrapper, name: str, given: Any) -> Tensor:
    score: Tensor = check_scores(as_tensor(given), f"layer {name!r}")
    if score.ndim > 1:
        score = strategy.of_channels(model.torch_module(name), score)
    site_of(model, name, score.numel())
    return score


def _of_weights(
    strategy: Strategy,
    model: ModelWrapper,
    scores: Mapping[str, Tensor],
    amount: float,
    protected: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    modules = {name: model.torch_module(name) for name in scores}
    # Rows of one layer lose alike under Wanda; OWL alone has layers lose unlike parts, row by row.
    alike = strategy.per_row and strategy.default_distribution == "uniform"
    if strategy.config.nm is not None or alike or strategy.distribution == "uniform":
        return {
            name: strategy.mask(modules[name], score, amount, protected=protected.get(name))
            for name, score in scores.items()
        }
    found = {n: check_scores(as_rows(modules[n], s), f"layer {n!r}") for n, s in scores.items()}
    safe = {
        n: protected_mask(protected.get(n), len(s), n)[:, None].expand(s.shape)
        for n, s in found.items()
    }
    costs = dict.fromkeys(found, 1)
    budget = budget_for(strategy.config, found, safe, costs, amount, strategy.distribution, options)
    counts = counts_for(budget, strategy.distribution)
    return {
        name: row_mask(
            modules[name], strategy.keep_counted(budget.order[name], counts[name], safe[name])
        )
        for name in found
    }
