"""The order of columns that RIA gives an N:M pattern, against every order there is."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.masks import keep_pattern
from nodelens.pruning.permutation import channel_permutation


def kept(scores, order, nm):
    laid = scores[:, order]
    return float(laid[keep_pattern(laid, nm)].sum())


@pytest.mark.parametrize("seed", range(8))
def test_it_keeps_nearly_what_the_best_of_all_orders_keeps(seed):
    scores = torch.rand((3, 8), generator=torch.Generator().manual_seed(seed)).double() ** 3
    best = max(
        kept(scores, [*half, *(i for i in range(8) if i not in half)], (2, 4))
        for half in combinations(range(8), 4)
    )
    order = channel_permutation(scores, (2, 4))
    assert sorted(order.tolist()) == list(range(8))
    found, given = kept(scores, order, (2, 4)), kept(scores, list(range(8)), (2, 4))
    assert max(given, 0.95 * best) <= found <= best


def test_equal_columns_side_by_side_are_parted_with_nothing_lost():
    scores = torch.tensor([[9.0, 9, 9, 9, 1, 1, 1, 1]]).repeat(2, 1).double()
    order = channel_permutation(scores, (2, 4))
    assert kept(scores, order, (2, 4)) == 72 and kept(scores, list(range(8)), (2, 4)) == 40


def test_ria_permutes_the_pattern_and_lays_the_mask_back():
    torch.manual_seed(2)
    layer, x = nn.Linear(16, 6), torch.randn(30, 16)
    plain = get_pruning_strategy("ria", structured=False, nm=(2, 4))
    permuted = get_pruning_strategy("ria", structured=False, nm=(2, 4), permute=True)
    score = plain.score(layer, x).double()
    mask, order = permuted.prune(layer, x), channel_permutation(score, (2, 4))
    assert (mask[:, order].view(6, 4, 4).sum(2) == 2).all()
    assert float(score[mask].sum()) == pytest.approx(kept(score, order, (2, 4)))
    assert float(score[mask].sum()) > float(score[plain.prune(layer, x)].sum())


def test_what_cannot_be_permuted_is_refused():
    with pytest.raises(InvalidValueError, match="permute is True, expected a bool, and nm"):
        get_pruning_strategy("ria", permute=True)
    with pytest.raises(ShapeError, match="rows of 6 weights do not divide into groups of 4"):
        channel_permutation(torch.ones(2, 6), (2, 4))
