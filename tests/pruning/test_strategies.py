"""Scores of strategies against plain autograd, NumPy and cases worked out by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import Lens
from nodelens.errors import InvalidValueError
from nodelens.pruning import get_pruning_strategy
from nodelens.testing.subjects import SUBJECTS, TOKENS, rows_of

CONVOLUTIONAL = SUBJECTS[0]
GRADIENT = ["gradient", "taylor", "fisher", "momentum", "movement", "adaptive_movement"]
MEASURED = [*GRADIENT, "hybrid", "cascading_alignment", "lp_optimal", "cluster_aware", "random"]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(model.parameters()).requires_grad_(False)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    random = torch.random.get_rng_state()
    yield
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(random, torch.random.get_rng_state())


def plain_gradients(model: nn.Module, parts: list[tuple[Tensor, Tensor]], name: str) -> Tensor:
    """The summed loss's gradient of a weight for each part, by loss.backward() on a copy."""
    found = []
    for x, y in parts:
        twin = copy.deepcopy(model).eval()
        cross_entropy(twin(x), y, reduction="sum").backward()
        found.append(twin.get_submodule(name).weight.grad.double().flatten(1))
    return torch.stack(found)


def by_hand(name: str, parts: Tensor, samples: Tensor, w: Tensor, sizes: Tensor) -> Tensor:
    mean = parts.sum(0) / sizes.sum()
    steps = parts / sizes.view(-1, 1, 1) * w
    moved = -steps.sum(0)
    ema = (0.9 * 0.1 * steps[0] + 0.1 * steps[1]) / (1 - 0.81)
    return {
        "gradient": mean.abs(),
        "taylor": (mean * w).abs(),
        "fisher": samples.square().mean(0) * w.square(),
        "momentum": ema.abs(),
        "movement": moved,
        "adaptive_movement": (moved / steps.square().sum(0).sqrt()).nan_to_num(),
    }[name].sum(1)


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_strategies_say_what_backward_says(name):
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(8)
    parts = [rows_of(batch, slice(0, 5)), rows_of(batch, slice(5, 8))]
    single = [rows_of(batch, slice(i, i + 1)) for i in range(8)]
    found = get_pruning_strategy(name).scores(model, parts)
    assert list(found) == ["stem", "grouped", "state", "twice", "output"]
    for layer in ("stem", "state", "output"):
        w = model.get_submodule(layer).weight.detach().double().flatten(1)
        gradients = plain_gradients(model, parts, layer)
        samples = plain_gradients(model, single, layer)
        wanted = by_hand(name, gradients, samples, w, torch.tensor([5.0, 3.0]))
        torch.testing.assert_close(found[layer], wanted, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["gradient", "taylor", "fisher"])
def test_scores_of_means_do_not_depend_on_the_split(name):
    model, batch = CONVOLUTIONAL.model().double(), CONVOLUTIONAL.batch(9)
    batch = (batch[0].double(), batch[1])
    whole = get_pruning_strategy(name).scores(model, [batch])
    parts = get_pruning_strategy(name).scores(
        model, iter([rows_of(batch, slice(0, 2)), rows_of(batch, slice(2, 9))])
    )
    for layer, score in whole.items():
        torch.testing.assert_close(parts[layer], score, rtol=1e-10, atol=1e-14)


def test_movement_keeps_what_grows_away_from_zero():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data.fill_(1.0)
    # Descent goes against the gradient: the first weight shrinks, the second grows.
    gradients = torch.tensor([[2.0], [-2.0]])
    strategy = get_pruning_strategy("movement")
    assert strategy.score(layer, gradients=gradients).tolist() == [-2.0, 2.0]
    assert strategy.prune(layer, gradients=gradients).flatten().tolist() == [False, True]


def test_a_layers_own_gradients_serve_and_none_is_an_error():
    layer = nn.Linear(3, 4)
    strategy = get_pruning_strategy("taylor")
    with pytest.raises(
        InvalidValueError, match="strategy 'taylor': it needs the weight's gradients"
    ):
        strategy.prune(layer)
    layer(torch.randn(5, 3)).square().sum().backward()
    wanted = (layer.weight * layer.weight.grad).abs().sum(1).detach().double()
    torch.testing.assert_close(strategy.score(layer), wanted)
    with pytest.raises(
        InvalidValueError, match=r"gradients of shape \(3, 4\), expected the weight's"
    ):
        strategy.prune(layer, gradients=torch.zeros(3, 4))


def test_the_units_of_an_ffn_are_scored_by_all_their_weights():
    model, batch = TOKENS.model(), TOKENS.batch()
    ffn = model.feed_forward
    found = get_pruning_strategy("magnitude", norm=1).scores(model, [batch])
    assert list(found) == ["feed_forward.down"], "attention and the head are not pruned unasked"
    weights = [ffn.gate.weight, ffn.up.weight, ffn.down.weight.T]
    wanted = sum(w.detach().double().abs().sum(1) for w in weights)
    torch.testing.assert_close(found["feed_forward.down"], wanted)


@pytest.mark.parametrize("name", ["rayleigh_quotient", "average_redundancy", "activation_mean"])
def test_a_metric_is_a_strategy_with_the_sign_of_its_importance(name):
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(30)
    lens = Lens.from_name(name)
    plain = lens.analyse(model, batch).scores(name)
    found = get_pruning_strategy(name).scores(model, [batch])
    sign = -1 if lens.importance < 0 else 1
    for layer, score in found.items():
        torch.testing.assert_close(score, sign * plain[layer], rtol=1e-5, atol=1e-8)
    turned = get_pruning_strategy(name, direction=-sign).scores(model, [batch])
    assert all(torch.equal(turned[layer], -found[layer]) for layer in found)


def test_a_metric_prunes_one_layer_from_its_inputs():
    layer, x = nn.Linear(5, 8), torch.randn(60, 5)
    lens = Lens.from_name("rayleigh_quotient")
    score = lens.compute(inputs=x, weights=layer.weight)
    mask = get_pruning_strategy("rayleigh_quotient", amount=0.25).prune(layer, x)
    assert set((~mask[:, 0]).nonzero().flatten().tolist()) == set(score.argsort()[:2].tolist())


def test_hybrid_mixes_normalised_scores():
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(30)
    whole = [
        get_pruning_strategy("hybrid", alpha=a).scores(model, [batch]) for a in (0.0, 1.0, 0.3)
    ]
    for layer in whole[0]:
        mixed = 0.7 * whole[0][layer] + 0.3 * whole[1][layer]
        torch.testing.assert_close(whole[2][layer], mixed)
        assert whole[0][layer].min() == 0 and whole[0][layer].max() == 1
        size = model.get_submodule(layer).weight.detach().flatten(1).norm(dim=1)
        assert int(whole[0][layer].argmax()) == int(size.argmax())


def test_pooled_ranks_keep_the_order_of_all_layers_together():
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(30)
    ranks = torch.cat(
        list(get_pruning_strategy("global_alignment").scores(model, [batch]).values())
    )
    plain = torch.cat(list(get_pruning_strategy("alignment").scores(model, [batch]).values()))
    assert torch.equal(ranks.argsort(), plain.argsort())
    assert ranks.min() == 0 and ranks.max() == 1


def test_cascading_scores_each_layer_behind_what_is_silenced():
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(30)
    found = get_pruning_strategy("cascading_alignment").scores(model, [batch])
    alone, twin = get_pruning_strategy("alignment"), copy.deepcopy(model)
    whole = alone.scores(model, [batch])
    for name, score in found.items():
        expected = alone.scores(twin, [batch], layers=name)[name]
        torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-7)
        gone = ~alone.masks(twin, {name: expected})[name]
        # A channel that feeds a BatchNorm is silenced behind it.
        layer = twin.norm if name == "grouped" else twin.get_submodule(name)
        layer.weight.data[gone] = 0
        layer.bias.data[gone] = 0
    assert not torch.allclose(found["output"], whole["output"], rtol=1e-2)


def test_the_eigenvector_score_is_the_variance_along_the_top_directions():
    from nodelens.pruning.strategies.eigenvector import explained_by_top

    y = torch.randn((400, 6), generator=torch.Generator().manual_seed(0)).double() * torch.arange(
        1, 7
    )
    covariance = torch.cov(y.T)
    torch.testing.assert_close(explained_by_top(covariance, 1.0), covariance.diagonal())
    two = torch.diag(torch.tensor([5.0, 3.0, 2.0], dtype=torch.float64))
    assert explained_by_top(two, 0.5).tolist() == [5, 0, 0]
    assert explained_by_top(two, 0.51).tolist() == [5, 3, 0]


def test_chance_is_of_the_seed_and_of_each_layer_alone():
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch()
    for name in ("random", "bernoulli", "layerwise_random"):
        one = get_pruning_strategy(name, seed=1).scores(model, [batch])
        alone = get_pruning_strategy(name, seed=1).scores(model, [batch], layers="state")
        other = get_pruning_strategy(name, seed=2).scores(model, [batch])
        assert torch.equal(one["state"], alone["state"])
        assert not torch.equal(one["state"], other["state"])
        assert not torch.equal(one["grouped"], one["state"])


def test_bernoulli_keeps_what_fell_on_the_right_side_first():
    score = get_pruning_strategy("bernoulli", amount=0.3, seed=0).score(nn.Linear(2, 2000))
    assert abs(float((score >= 1).double().mean()) - 0.7) < 0.04


def test_a_random_strategy_is_not_the_global_one():
    assert get_pruning_strategy("global_magnitude").distribution == "global_threshold"
    assert (
        get_pruning_strategy("layerwise_random", distribution="cascading").distribution == "uniform"
    )


@pytest.mark.parametrize("name", MEASURED)
def test_nothing_of_the_model_changes(name):
    model, batch = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch(20)
    with unchanged(model):
        strategy = get_pruning_strategy(name)
        strategy.masks(model, strategy.scores(model, [batch]))


@pytest.mark.parametrize("name", ["taylor", "cascading_alignment", "two_halo", "lp_optimal"])
def test_nothing_of_the_model_changes_when_scoring_fails(name):
    subject = TOKENS if name == "two_halo" else CONVOLUTIONAL
    model, (inputs, targets) = subject.model(), subject.batch(20)
    bad = (inputs, targets + 99)
    if name == "cascading_alignment":
        bad = (inputs * float("nan"), targets)
    with unchanged(model), pytest.raises(ValueError, match=f"strategy '{name}': .*batch 1"):
        get_pruning_strategy(name).scores(model, [(inputs, targets), bad])


def test_a_gradient_that_is_not_finite_names_the_layer_and_batch():
    model, (x, y) = CONVOLUTIONAL.model(), CONVOLUTIONAL.batch()
    model.stem.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"strategy 'taylor': batch 0: .*nan"):
        get_pruning_strategy("taylor").scores(model, [(x, y)])


def test_what_scoring_needs_is_asked_for():
    model = CONVOLUTIONAL.model()
    with pytest.raises(InvalidValueError, match="strategy 'fisher': it needs loss: give batches"):
        get_pruning_strategy("fisher").scores(model)
    with pytest.raises(InvalidValueError, match="there is no batch"):
        get_pruning_strategy("fisher").scores(model, [])
    with pytest.raises(ValueError, match="did you mean 'grouped'"):
        get_pruning_strategy("magnitude").scores(model, layers="groupd")
    assert list(get_pruning_strategy("magnitude").scores(model, pattern="gr|st")) == [
        "state",
        "grouped",
        "stem",
    ]
