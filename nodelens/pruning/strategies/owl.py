"""OWL: layers with more outliers lose less."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.pruning.distributions import Budget, register_distribution
from nodelens.pruning.masks import keep_best
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.wanda import Wanda

__all__ = ["Owl", "outlier_ratio", "owl", "owl_amounts"]

PAPER = (
    "Yin, Wu, Zhang, Hsieh, Wang, Jia, Li, Liang, Pechenizkiy, Liang, Bendersky, Wang and Liu "
    "(2024), Outlier weighed layerwise sparsity (OWL): a missing secret sauce for pruning LLMs to "
    "high sparsity, ICML"
)


def outlier_ratio(scores: Tensor, times: float = 5.0) -> float:
    """Return which part of a layer's scores is above `times` their mean (M in the paper).

    >>> outlier_ratio(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]))
    0.125
    """
    scores = scores.detach().double()
    return float((scores > times * scores.mean()).double().mean())


def owl_amounts(
    ratios: Mapping[str, float], amount: float, spread: float = 0.08
) -> dict[str, float]:
    """Return every layer's amount: at most 2 `spread` apart, with `amount` as their plain mean.

    Those in between lie as their outlier ratios do. Equal ratios give `amount` to all.

    >>> owl_amounts({"a": 0.0, "b": 0.1}, 0.5)
    {'a': 0.58, 'b': 0.42}
    """
    low, high = min(ratios.values()), max(ratios.values())
    width = high - low
    rises = {n: 2 * spread * (r - low) / width if width > 0 else 0.0 for n, r in ratios.items()}
    mean = sum(rises.values()) / len(rises)
    return {name: amount - (rise - mean) for name, rise in rises.items()}


@register_distribution("owl", options=("outliers", "times", "spread"))
def owl(budget: Budget) -> dict[str, float]:
    """Return what layers lose when those with more outlying scores keep more.

    `outliers`, `{layer: ratio}`, may be given; else they are those of the scores. `times` is M of
    the paper (5), `spread` its lambda (0.08).
    """
    times, spread = float(budget.option("times", 5.0)), float(budget.option("spread", 0.08))
    if not times > 0 or not 0 <= spread < 1:
        raise InvalidValueError(
            f"times is {times} and spread {spread}, expected times above 0 and spread in [0, 1)"
        )
    given = budget.option("outliers")
    found = given or {name: outlier_ratio(score, times) for name, score in budget.scores.items()}
    for name in budget.sizes:
        if name not in found:
            raise InvalidValueError(f"outliers has no ratio of layer {name!r}")
    amounts = owl_amounts({name: found[name] for name in budget.sizes}, budget.amount, spread)
    return {name: amounts[name] * size for name, size in budget.sizes.items()}


@register_strategy("owl", paper=PAPER)
class Owl(Wanda):
    """Wanda's scores, and layers pruned the less the more of their weights are outliers.

    Outliers are those above M = 5 times the layer's mean of |W_ij| ||X_j||_2. Single weights
    compete within their row, whose counts differ by one at most.
    """

    default_distribution = "owl"

    def keep_counted(self, order: Tensor, removed: int, safe: Tensor) -> Tensor:
        return keep_in_rows(order, removed)


def keep_in_rows(order: Tensor, removed: int) -> Tensor:
    """Return the mask without `removed` entries, taken evenly from the lowest of every row.

    What does not divide by the rows goes from those whose next entry is lowest. Infinite entries
    stay; where a row has too few others, the lowest of all rows go instead.

    >>> keep_in_rows(torch.tensor([[1.0, 2.0], [5.0, 4.0]]), 3)
    tensor([[False, False],
            [ True, False]])
    """
    rank = torch.argsort(order, dim=1, stable=True).argsort(1)
    # By rank first, then by score: whole ranks go before the next one is begun.
    flat = torch.argsort(order.flatten(), stable=True)
    place = torch.empty_like(flat).scatter_(0, flat, torch.arange(len(flat))).view(order.shape)
    turn = (rank * order.numel() + place).double().masked_fill(order.isinf(), torch.inf)
    return keep_best(turn, removed)
