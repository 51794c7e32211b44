"""A pruning configuration is checked when it is made; names are found or the nearest is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodelens.errors import InvalidValueError, UnknownNameError, UnknownOptionError
from nodelens.metrics import list_metrics
from nodelens.pruning import PruningConfig, get_pruning_strategy, list_pruning_strategies

OWN = [
    "adaptive_movement",
    "adaptive_sensitivity",
    "alignment",
    "bernoulli",
    "cascading_alignment",
    "cluster_aware",
    "composite",
    "eigenvector",
    "fisher",
    "generalized_taylor",
    "global_alignment",
    "global_magnitude",
    "gradient",
    "hybrid",
    "iterative_magnitude",
    "layerwise_random",
    "lp_optimal",
    "magnitude",
    "momentum",
    "movement",
    "random",
    "stratified",
    "supernode_connectivity",
    "supernode_protection",
    "taylor",
    "two_halo",
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amount": 1.0}, "amount is 1.0, expected the part to remove, from 0 to below 1"),
        ({"amount": -0.1}, "amount is -0.1"),
        ({"amount": float("nan")}, "amount is nan"),
        ({"amount": True}, "amount is True"),
        ({"pruning_mode": "lo"}, r"pruning_mode is 'lo' \(did you mean 'low'\?\)"),
        ({"distribution": "global"}, r"did you mean 'global_\w+'\?\), expected one of"),
        ({"schedule": "cubed"}, r"schedule is 'cubed' \(did you mean 'cubic'\?\)"),
        ({"min_keep": 0}, "min_keep is 0, expected a whole number from 1 on"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"structured": 1}, "structured is 1, expected True or False"),
        ({"max_amount": 2}, "max_amount is 2, expected a number from 0 to 1"),
        ({"min_amount": 0.6, "max_amount": 0.5}, "min_amount is 0.6 and max_amount 0.5"),
        ({"nm": (4, 2), "structured": False}, r"nm is \(4, 2\), expected \(n, m\)"),
        ({"nm": (2, 4)}, "nm masks single weights: give structured=False"),
        ({"nm": (1, 4), "structured": False, "amount": 0.6}, "removes 0.75: leave amount out"),
    ],
)
def test_a_value_that_will_not_do_is_an_error_that_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        PruningConfig(**options)


def test_a_pattern_sets_the_amount():
    assert PruningConfig(nm=(1, 4), structured=False).amount == 0.75


def test_all_strategies_are_listed_with_every_metric():
    listed = list_pruning_strategies()
    assert set(OWN) <= set(listed) and set(list_metrics()) <= set(listed)
    assert listed == sorted(set(listed))


def test_an_unknown_strategy_is_a_key_error_with_the_nearest():
    with pytest.raises(KeyError, match=r"'magnitud' \(did you mean 'magnitude'\?\); list_prun"):
        get_pruning_strategy("magnitud")
    with pytest.raises(UnknownNameError, match="unknown pruning strategy 'ablation'"):
        get_pruning_strategy("ablation")


def test_an_unknown_option_is_a_type_error_with_the_nearest():
    with pytest.raises(TypeError, match=r"strategy 'magnitude' has no option 'amout' \(.*'amount'"):
        get_pruning_strategy("magnitude", amout=0.3)
    with pytest.raises(UnknownOptionError, match=r"has no option 'alpah' \(did you mean 'alpha'"):
        get_pruning_strategy("hybrid", alpah=0.3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magnitude", {"norm": 3}, "norm is 3, expected 1 or 2"),
        ("momentum", {"beta": 1.0}, "beta is 1.0"),
        ("hybrid", {"alpha": 2}, "alpha is 2"),
        ("hybrid", {"normalise": "mnmax"}, "did you mean 'minmax'"),
        ("eigenvector", {"variance_threshold": 0}, "variance_threshold is 0"),
        ("composite", {"weights": {"rg": 1}}, r"the role 'rg' \(did you mean 'rq'\?\)"),
        ("stratified", {"by": "taylr"}, "did you mean 'taylor'"),
        ("generalized_taylor", {"variant": "ful"}, "did you mean 'full'"),
        ("cluster_aware", {"protect": 1.0}, "protect is 1.0"),
        ("lp_optimal", {"metrics": ("proxy",)}, "metrics has 'proxy'"),
        ("two_halo", {"core": 1.0}, "core is 1.0"),
        ("rayleigh_quotient", {"structured": False}, "it scores channels, so structured=False"),
    ],
)
def test_an_option_of_a_strategy_that_will_not_do_names_the_strategy(name, options, message):
    with pytest.raises(InvalidValueError, match=f"strategy '{name}': .*{message}"):
        get_pruning_strategy(name, **options)


def test_options_override_the_config():
    config = PruningConfig(amount=0.5, seed=3)
    strategy = get_pruning_strategy("magnitude", config, amount=0.25, norm=1)
    assert (strategy.config.amount, strategy.config.seed, strategy.norm) == (0.25, 3, 1)
    assert config.amount == 0.5


@pytest.mark.parametrize("name", OWN)
def test_every_strategy_says_what_it_needs(name):
    strategy = get_pruning_strategy(name)
    assert strategy.name == name and strategy.unit in ("channels", "weights", "both")
    assert set(strategy.needs) <= {"inputs", "loss", "targets"}
    assert (type(strategy).__doc__ or "").strip()


def test_a_config_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="config is a dict, expected a PruningConfig"):
        get_pruning_strategy("magnitude", {"amount": 0.5})


def test_the_call_of_the_api_page():
    config = PruningConfig(amount=0.5, pruning_mode="low")
    strategy = get_pruning_strategy("magnitude", config=config)
    layer = nn.Linear(4, 6)
    mask = strategy.prune(layer, amount=0.5)
    assert mask.shape == layer.weight.shape and mask.dtype == torch.bool
