"""Masks are exact: how many go, which, and what stays in every mode."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from nodelens.pruning import PruningConfig, Strategy, get_pruning_strategy
from nodelens.pruning.masks import keep_best, keep_pattern, removed_count


class Given(Strategy):
    """Scores handed in, for tests of masks alone."""

    name = "given"
    unit = "both"
    options = {"values": None}

    def score(self, layer, inputs=None, **tensors):
        return self.values


def layer(channels: int, width: int = 4) -> nn.Linear:
    with torch.random.fork_rng():
        made = nn.Linear(width, channels)
    made.weight.data.copy_(torch.arange(channels * width).view(channels, width))
    return made


def rows(values, channels: int | None = None, **options) -> list[bool]:
    protected = options.pop("protected", None)
    score = torch.tensor(values)
    made = Given(values=score, **options)
    mask = made.prune(layer(channels or len(values)), protected=protected)
    assert bool((mask == mask[:, :1]).all()), "a row is kept whole or not at all"
    return mask[:, 0].tolist()


@given(
    amount=st.integers(0, 99), n=st.integers(1, 40), mode=st.sampled_from(["low", "high", "random"])
)
def test_exactly_the_floor_of_the_part_is_removed(amount, n, mode):
    kept = rows([float(i % 3) for i in range(n)], amount=amount / 100, pruning_mode=mode)
    assert kept.count(False) == amount * n // 100


def test_a_part_that_floats_cannot_hold_is_still_exact():
    assert [removed_count(a, 100) for a in (0.29, 0.57, 0.58)] == [29, 57, 58]


def test_the_lowest_go_and_with_high_the_highest():
    assert rows([0.3, 0.1, 0.2, 0.4]) == [True, False, False, True]
    assert rows([0.3, 0.1, 0.2, 0.4], pruning_mode="high") == [False, True, True, False]


def test_ties_go_by_index_in_both_modes():
    assert rows([1.0, 1.0, 1.0, 1.0]) == [False, False, True, True]
    assert rows([1.0, 1.0, 1.0, 1.0], pruning_mode="high") == [False, False, True, True]


def test_signed_scores_are_ranked_as_signed():
    assert rows([-5.0, 0.0, 1.0, -1.0]) == [False, True, True, False]


@pytest.mark.parametrize("mode", ["low", "high", "random"])
def test_protected_channels_stay_in_every_mode(mode):
    for seed in range(10):
        kept = rows(
            [0.0, 9.0, 1.0, 2.0], amount=0.5, pruning_mode=mode, protected=[0, 1], seed=seed
        )
        assert kept == [True, True, False, False]


def test_random_masks_are_those_of_their_seed_and_draw_nothing_global():
    before = torch.random.get_rng_state()
    drawn = [tuple(rows([0.0] * 12, pruning_mode="random", seed=s)) for s in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert torch.equal(before, torch.random.get_rng_state())


def test_as_many_stay_as_the_config_says():
    assert rows([0.0, 1.0, 2.0, 3.0], amount=0.9, min_keep=2) == [False, False, True, True]


def test_single_weights_go_by_their_own_size():
    made = get_pruning_strategy("magnitude", structured=False, amount=0.25)
    assert made.prune(layer(2, 4)).flatten().tolist() == [False] * 2 + [True] * 6


def test_the_best_two_of_every_four_stay():
    values = torch.tensor([[1.0, 4.0, 2.0, 3.0, 8.0, 7.0, 6.0, 5.0]])
    assert keep_pattern(values, (2, 4)).int().tolist() == [[0, 1, 0, 1, 1, 1, 0, 0]]
    made = get_pruning_strategy("magnitude", structured=False, nm=(2, 4))
    mask = made.prune(layer(3, 8))
    assert bool((mask.view(3, 2, 4).sum(2) == 2).all())
    with pytest.raises(ShapeError, match="rows of 6 weights do not divide into groups of 4"):
        made.prune(layer(3, 6))


def test_convolutions_and_transposed_layers_get_masks_of_their_weights_shape():
    from transformers.pytorch_utils import Conv1D

    made = get_pruning_strategy("magnitude")
    convolution = nn.Conv2d(3, 4, 2)
    mask = made.prune(convolution)
    assert mask.shape == (4, 3, 2, 2) and int(mask[:, 0, 0, 0].sum()) == 2
    turned = Conv1D(4, 6)
    turned.weight.data[:, 1] = 100.0
    mask = made.prune(turned)
    assert mask.shape == (6, 4) and bool(mask[:, 1].all()) and int(mask[0].sum()) == 2


def test_scores_that_are_not_finite_or_of_another_shape_are_errors():
    with pytest.raises(NonFiniteError, match=r"strategy 'given': .*1 of 2 scores are not finite"):
        rows([float("nan"), 1.0])
    with pytest.raises(
        ShapeError, match=r"scores are \(3,\), expected the weight's shape \(2, 4\)"
    ):
        rows([0.0, 1.0, 2.0], channels=2)
    with pytest.raises(ShapeError, match="a mask of shape"):
        rows([0.0, 1.0], protected=torch.tensor([True]))


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(4), nn.Embedding(5, 3), nn.ReLU(), nn.BatchNorm2d(3)]
)
def test_norms_and_embeddings_are_not_pruned(module):
    with pytest.raises(ShapeError, match="has no channels to prune"):
        get_pruning_strategy("magnitude").prune(module)


def test_an_amount_of_everything_is_an_error():
    with pytest.raises(InvalidValueError, match="nothing of a layer would be left"):
        get_pruning_strategy("magnitude").prune(layer(3), amount=1.0)


def test_protection_of_more_than_stays_removes_the_rest_alone():
    keep = keep_best(torch.arange(4.0), 3, torch.tensor([True, True, False, False]))
    assert keep.tolist() == [True, True, False, False]


def test_a_config_is_a_value():
    assert PruningConfig() == PruningConfig(amount=0.5, pruning_mode="low", structured=True)
