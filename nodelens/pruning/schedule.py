"""Pruning in steps: the amount at each, and masks in which what is gone stays gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nodelens.pruning.config import SCHEDULES, check_amount, check_choice, whole
from nodelens.pruning.strategy import Strategy

__all__ = ["scheduled_amounts", "scheduled_masks"]


def scheduled_amounts(
    amount: float, steps: int, schedule: str, *, start: float = 0.0
) -> list[float]:
    """Return the amount removed after each of `steps` steps; the last is `amount` itself.

    "linear" grows evenly from `start`; "cubic" fast at first, a + (start - a)(1 - t/T)^3 (Zhu and
    Gupta 2017, To prune, or not to prune); "one_shot" is one step.

    >>> scheduled_amounts(0.8, 4, "linear")
    [0.2, 0.4, 0.6000000000000001, 0.8]
    """
    amount, start = check_amount(amount), check_amount(start)
    whole("steps", steps, 1)
    check_choice("schedule", schedule, SCHEDULES)
    if schedule == "one_shot":
        return [amount]
    power = 3 if schedule == "cubic" else 1
    path = [amount + (start - amount) * (1 - t / steps) ** power for t in range(1, steps + 1)]
    return [*path[:-1], amount]


def scheduled_masks(
    strategy: Strategy,
    model: Any,
    score: Callable[[], Mapping[str, Tensor]],
    **options: Any,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Yield (amount, masks) for each step of the strategy's schedule.

    `score()` is called before each step: train the masked model between two, then score it anew.
    Units removed in a step are the first to go in the next. `options` are those of `masks`.
    """
    config = strategy.config
    gone: dict[str, Tensor] = {}
    for amount in scheduled_amounts(config.amount, config.steps, config.schedule):
        scores = {
            name: _lowest(s, gone.get(name), config.pruning_mode) for name, s in score().items()
        }
        masks = strategy.masks(model, scores, amount, **options)
        gone = {name: ~mask for name, mask in masks.items()}
        yield amount, masks


def _lowest(scores: Tensor, gone: Tensor | None, mode: str) -> Tensor:
    """Return scores in which what is gone comes before all else; in random mode as they are.

    There the same seed draws the same order in each step.
    """
    if gone is None or not bool(gone.any()) or mode == "random":
        return scores
    scores = scores.double()
    reach = scores.max() - scores.min() + 1
    end = scores.max() + reach if mode == "high" else scores.min() - reach
    return torch.where(gone, end, scores)
