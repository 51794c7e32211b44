"""What a model loses under masks, and how much of that is due to each layer alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from nodelens.interventions import Evaluation, evaluate
from nodelens.model import wrap
from nodelens.pruning.config import check_amount
from nodelens.pruning.masks import keep_best, removed_count
from nodelens.pruning.units import condition_of

__all__ = ["evaluate_masks", "measure_sensitivity"]


def evaluate_masks(
    model: Any, batches: Iterable[Any], masks: Mapping[str, Tensor], *, loss: Any = None
) -> Evaluation:
    """Return loss and accuracy with what the masks do not keep silenced; no weight is written."""
    wrapper = wrap(model)
    return evaluate(wrapper, batches, condition_of(wrapper, masks), loss=loss)


def measure_sensitivity(
    model: Any,
    scores: Mapping[str, Tensor],
    batches: Iterable[Any],
    *,
    amount: float = 0.3,
    loss: Any = None,
) -> dict[str, float]:
    """Return the change of the mean loss when `amount` of one layer alone is silenced, by layer.

    The units with the lowest scores go. The batches are kept in memory and gone through once a
    layer.
    """
    amount, kept = check_amount(amount), list(batches)
    before = evaluate(model, kept, loss=loss).loss
    masks = {n: keep_best(s, removed_count(amount, len(s))) for n, s in scores.items()}
    return {
        name: evaluate_masks(model, kept, {name: mask}, loss=loss).loss - before
        for name, mask in masks.items()
    }
