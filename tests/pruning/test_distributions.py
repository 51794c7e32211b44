"""A budget is met exactly, within the bounds of every layer, or an error says why it cannot be."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nodelens import ModelWrapper
from nodelens.errors import InvalidValueError, LayerNotFoundError, ShapeError, UnknownOptionError
from nodelens.pruning import (
    get_pruning_strategy,
    list_distributions,
    register_distribution,
)
from nodelens.pruning.schedule import scheduled_amounts, scheduled_masks

WIDTHS = {"0": 10, "1": 6, "2": 17}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 6), nn.Linear(6, 17), nn.Linear(17, 3))


MODEL = ModelWrapper(network())


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, generator=generator) for name, n in WIDTHS.items()}


def gone(distribution: str, scores=None, amount=0.5, options=None, **config) -> dict[str, int]:
    if distribution == "adaptive_sensitivity":
        options = {"sensitivity": {"0": 0.1, "1": 2.0, "2": -1.0}, **(options or {})}
    if distribution == "slimllm":
        options = {"similarity": {"0": 0.9, "1": 0.7, "2": 0.8}, **(options or {})}
    made = get_pruning_strategy("magnitude", distribution=distribution, **config)
    masks = made.masks(MODEL, scores or drawn(0), amount, **(options or {}))
    return {name: int((~mask).sum()) for name, mask in masks.items()}


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(list_distributions()),
    seed=st.integers(0, 99),
    amount=st.floats(0.1, 0.7),
    mode=st.sampled_from(["low", "high", "random"]),
)
def test_every_distribution_meets_total_and_bounds(name, seed, amount, mode):
    found = gone(
        name, drawn(seed), amount, min_amount=0.0, max_amount=0.8, pruning_mode=mode, min_keep=2
    )
    total = int(amount * 33 + 1e-9)
    if name == "uniform":
        total = sum(int(amount * n + 1e-9) for n in WIDTHS.values())
    if name == "flap":
        costs = {"0": 4, "1": 10, "2": 6}
        left = amount * (40 + 60 + 102) - sum(found[n] * costs[n] for n in WIDTHS)
        assert 0 <= left + 1e-9 < 10, "not one unit more or less"
    else:
        assert sum(found.values()) == total
    assert all(found[n] <= int(0.8 * size) and found[n] <= size - 2 for n, size in WIDTHS.items())


def test_flap_says_why_bounds_do_not_allow_its_weights():
    with pytest.raises(InvalidValueError, match=r"0.5 of 202 weights .* lose 0 at least and 42 at"):
        gone("flap", max_amount=0.25)
    with pytest.raises(InvalidValueError, match=r"0.1 of 202 weights .* lose 104 at least"):
        gone("flap", amount=0.1, min_amount=0.5)


def test_bounds_hold_where_a_global_threshold_would_empty_a_layer():
    scores = drawn(0)
    scores["1"] = scores["1"] - 100
    assert gone("global_threshold", scores)["1"] == 5  # all but min_keep
    assert gone("global_threshold", scores, max_amount=0.5)["1"] == 3
    scores["1"] = scores["1"] + 200
    assert gone("global_threshold", scores)["1"] == 0
    assert gone("global_threshold", scores, min_amount=0.3)["1"] == 2


def test_one_threshold_over_all_layers_is_that_of_sorting_all():
    scores = drawn(4)
    border = torch.cat(list(scores.values())).sort().values[16]
    assert gone("global_threshold", scores) == {
        n: int((s < border).sum()) for n, s in scores.items()
    }


def test_the_knapsack_ranks_by_score_per_weight():
    scores = {"0": torch.full((10,), 4.0), "1": torch.full((6,), 9.0)}
    assert gone("global_threshold", scores) == {"0": 8, "1": 0}
    # A unit of the first has 4 weights, of the second 10: 1 a weight against 0.9.
    assert gone("global_knapsack", scores) == {"0": 3, "1": 5}


def test_sensitive_layers_lose_less():
    found = gone("adaptive_sensitivity")
    parts = {name: found[name] / WIDTHS[name] for name in WIDTHS}
    assert parts["1"] < parts["0"] < parts["2"]


def test_sizes_depth_importance_and_mixtures_tell():
    by_size = gone("size_proportional", amount=0.3)
    assert by_size == {"0": 2, "1": 3, "2": 4}  # 40, 60 and 102 weights
    steep = gone("cascading", options={"slope": 1.0}, amount=0.3)
    assert steep["0"] == 0 and steep["2"] > steep["1"]
    scores = {name: s + 3 * int(name) for name, s in drawn(0).items()}
    parts = {n: k / WIDTHS[n] for n, k in gone("importance_weighted", scores, 0.3).items()}
    assert parts["0"] > parts["1"] > parts["2"]
    assert gone("hybrid", scores, options={"mix": 0.0}) == gone("global_threshold", scores)


def test_a_budget_that_cannot_be_met_says_why():
    with pytest.raises(InvalidValueError, match=r"amount 0.5 is 16 of 33 units.*lose 12 at most"):
        gone("global_threshold", max_amount=0.4)
    with pytest.raises(InvalidValueError, match=r"is 3 of 33 units.*lose 11 at least"):
        gone("global_threshold", amount=0.1, min_amount=0.3)
    made = get_pruning_strategy("magnitude", min_amount=0.5)
    with pytest.raises(InvalidValueError, match=r"layer '1' has to lose 3 of 6 units .*can lose 1"):
        made.masks(MODEL, drawn(0), protected={"1": [0, 1, 2, 3, 4]})


def test_protected_units_stay_and_the_total_is_met_elsewhere():
    made = get_pruning_strategy("magnitude", distribution="global_threshold")
    masks = made.masks(MODEL, drawn(1), 0.4, protected={"2": range(17)})
    assert bool(masks["2"].all()) and sum(int((~m).sum()) for m in masks.values()) == 13


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ({"4": torch.zeros(3)}, LayerNotFoundError, "no layer '4'"),
        ({"0": torch.zeros(9)}, ShapeError, "layer '0': 9 entries, expected 10"),
        ({"0": torch.full((10,), float("nan"))}, ValueError, "10 of 10 scores are not finite"),
        ({}, InvalidValueError, "there are no scores"),
    ],
)
def test_scores_of_no_layer_or_of_another_width_are_errors(scores, error, message):
    with pytest.raises(error, match=message):
        get_pruning_strategy("magnitude").masks(MODEL, scores)


def test_options_of_a_distribution_are_checked():
    with pytest.raises(UnknownOptionError, match=r"no option 'slop' \(did you mean 'slope'\?\)"):
        gone("cascading", options={"slop": 0.5})
    with pytest.raises(InvalidValueError, match="slope is 2, expected a number from 0 to 1"):
        gone("cascading", options={"slope": 2})
    with pytest.raises(InvalidValueError, match="sensitivity lacks layer '0'"):
        gone("adaptive_sensitivity", options={"sensitivity": {"1": 1.0}})


def test_a_distribution_of_ones_own_is_made_exact():
    @register_distribution("first_only")
    def first_only(budget):
        return {name: budget.total if name == "0" else 0 for name in budget.sizes}

    assert gone("first_only", amount=0.2) == {"0": 6, "1": 0, "2": 0}
    assert sum(gone("first_only", amount=0.6).values()) == 19


def test_schedules_reach_their_target():
    assert scheduled_amounts(0.8, 4, "linear") == pytest.approx([0.2, 0.4, 0.6, 0.8])
    cubic = scheduled_amounts(0.8, 4, "cubic")
    assert cubic == pytest.approx([0.8 - 0.8 * (1 - t / 4) ** 3 for t in (1, 2, 3, 4)])
    assert cubic[-1] == 0.8 and scheduled_amounts(0.8, 9, "one_shot") == [0.8]
    with pytest.raises(InvalidValueError, match="schedule is 'cube'"):
        scheduled_amounts(0.8, 4, "cube")


@pytest.mark.parametrize("mode", ["low", "high", "random"])
@pytest.mark.parametrize("name", ["uniform", "global_threshold", "cascading"])
def test_what_is_gone_in_one_step_is_gone_in_the_next(mode, name):
    made = get_pruning_strategy(
        "iterative_magnitude",
        amount=0.6,
        steps=3,
        schedule="cubic",
        pruning_mode=mode,
        distribution=name,
    )
    seeds = iter(range(3))
    steps = [masks for _, masks in scheduled_masks(made, MODEL, lambda: drawn(next(seeds)))]
    for before, after in pairwise(steps):
        assert all(not bool((after[n] & ~before[n]).any()) for n in WIDTHS)
    assert sum(int((~m).sum()) for m in steps[-1].values()) in (19, 6 + 3 + 10)
