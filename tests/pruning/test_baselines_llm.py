"""Published baselines for language models, against NumPy and against themselves on toys."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from nodelens.errors import InvalidValueError, MissingLossError, ShapeError, TooFewRowsError
from nodelens.interventions import silenced_outputs
from nodelens.model import wrap
from nodelens.pruning import get_pruning_strategy
from tests.pruning.networks import UNITS, WIDTH, array, caught, ffn, maps, rows, weights

DOWN = ["blocks.0.down", "blocks.1.down"]


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-12)


def wanda_plainly(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.abs(w) * np.sqrt((x**2).sum(0))


def test_wanda_of_a_layer_is_weight_times_input_norm_and_rows_lose_alike():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 5), torch.randn(30, 8)
    strategy = get_pruning_strategy("wanda", structured=False)
    wanted = wanda_plainly(array(layer.weight), array(x))
    np.testing.assert_allclose(strategy.score(layer, x).numpy(), wanted, rtol=1e-5)
    mask = strategy.prune(layer, x, 0.5)
    assert (~mask).sum(1).tolist() == [4] * 5
    for row, kept in zip(wanted, mask.numpy(), strict=True):
        assert row[~kept].max() < row[kept].min()


def test_wanda_keeps_two_of_every_four():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 5), torch.randn(30, 8)
    strategy = get_pruning_strategy("wanda", structured=False, nm=(2, 4))
    wanted = wanda_plainly(array(layer.weight), array(x)).reshape(5, 2, 4)
    mask = strategy.prune(layer, x).view(5, 2, 4).numpy()
    assert (mask.sum(2) == 2).all()
    assert (np.where(mask, wanted, np.inf).min(2) > np.where(mask, -np.inf, wanted).max(2)).all()


def test_wanda_of_a_grouped_convolution_meets_its_own_patches():
    model, batches = maps(), [(torch.randn(3, 2, 9, 9, dtype=torch.float64), None)]
    x, _ = caught(model, "grouped", batches)
    unfolded = array(torch.nn.functional.unfold(x, 2).transpose(1, 2).flatten(0, 1))
    norms = np.sqrt((unfolded**2).sum(0)).reshape(2, 1, 4, 2, 2)
    w = weights(model, "grouped")
    strategy = get_pruning_strategy("wanda", structured=False)
    wanted = np.abs(w.reshape(2, 3, 4, 2, 2)) * norms
    close(strategy.score(model.grouped, x), wanted.reshape(w.shape))


def test_wanda_of_ffn_units_sums_the_column_of_down_over_a_stream():
    model, batches = ffn(), rows()
    found = get_pruning_strategy("wanda").scores(model, batches)
    assert list(found) == DOWN
    for name in DOWN:
        x, _ = caught(model, name, batches)
        wanted = wanda_plainly(weights(model, name), array(x)).sum(0)
        close(found[name], wanted)
        close(get_pruning_strategy("wanda").score_inputs(model.get_submodule(name), x), wanted)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_ria_is_relative_importance_times_a_power_of_the_norm(power):
    torch.manual_seed(1)
    layer, x = nn.Linear(7, 4).double(), torch.randn(20, 7, dtype=torch.float64)
    size = np.abs(array(layer.weight))
    relative = size / size.sum(0) + size / size.sum(1)[:, None]
    wanted = relative * np.sqrt((array(x) ** 2).sum(0)) ** power
    strategy = get_pruning_strategy("ria", structured=False, a=power)
    close(strategy.score(layer, x), wanted)
    mask = strategy.prune(layer, x, 0.5).numpy()
    assert (~mask).sum() == 14 and wanted[~mask].max() < wanted[mask].min()


def test_ria_refuses_a_negative_power():
    with pytest.raises(InvalidValueError, match="a is -1"):
        get_pruning_strategy("ria", a=-1)


def flap_plainly(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    score = x.var(0, ddof=1) * (w**2).sum(0)
    return (score - score.mean()) / score.std(ddof=1)


def test_flap_is_fluctuation_times_column_norm_standardised():
    model, batches = ffn(), rows()
    strategy = get_pruning_strategy("flap")
    found = strategy.scores(model, batches)
    for name in DOWN:
        x, _ = caught(model, name, batches)
        close(found[name], flap_plainly(weights(model, name), array(x)))
    masks = strategy.masks(model, found, 0.4)
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert sum(removed.values()) == 8, "one threshold over both layers"
    cut = max(float(found[n][~masks[n]].max()) for n in DOWN if removed[n])
    assert all(float(found[n][masks[n]].min()) > cut for n in DOWN)


def test_flap_needs_two_rows():
    with pytest.raises(TooFewRowsError, match="one row"):
        get_pruning_strategy("flap").score(nn.Linear(3, 2), torch.ones(1, 3))


def test_flap_compensation_is_silencing_with_the_mean():
    model, batches = ffn(), rows()
    strategy = get_pruning_strategy("flap")
    means = strategy.means(model, batches)
    masks = strategy.masks(model, strategy.scores(model, batches), 0.5)
    bias = strategy.compensation(model, masks, means)
    pruned = copy.deepcopy(ffn())
    with torch.no_grad():
        for name in DOWN:
            x, _ = caught(model, name, batches)
            close(means[name], array(x).mean(0))
            layer = pruned.get_submodule(name)
            layer.weight[:, ~masks[name]] = 0
            layer.bias += bias[name]
        wanted = pruned(batches[0][0])
    wrapper = wrap(model)
    silent = {name: ~mask for name, mask in masks.items()}
    options = {"value": means, "site": "input"}
    found = silenced_outputs(wrapper, wrapper.prepare_batch(batches[0]), silent, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, ffn()(batches[0][0]), rtol=1e-3)


def test_flap_compensation_refuses_a_mask_of_other_units():
    with pytest.raises(ShapeError, match=r"blocks.0.down"):
        get_pruning_strategy("flap").compensation(
            ffn(), {DOWN[0]: torch.ones(3, dtype=torch.bool)}, {DOWN[0]: torch.ones(3)}
        )


def gradients_plainly(model: nn.Module) -> None:
    for x, y in rows():
        cross_entropy(model(x), y, reduction="sum").backward()


@pytest.mark.parametrize("level", ["element", "vector"])
@pytest.mark.parametrize("reduction", ["sum", "prod", "max", "last"])
def test_llm_pruner_is_taylor_over_gate_up_and_down(level, reduction):
    model, plain = ffn(), ffn()
    gradients_plainly(plain)
    strategy = get_pruning_strategy("llm_pruner", level=level, reduction=reduction)
    found = strategy.scores(model, rows())
    assert all(p.grad is None for p in model.parameters())
    for block, name in zip(plain.blocks, DOWN, strict=True):
        layers = (block.gate, block.up, block.down)
        products = [array(m.weight) * array(m.weight.grad) for m in layers]
        products[2] = products[2].T
        each = [np.abs(p).sum(1) if level == "element" else np.abs(p.sum(1)) for p in products]
        together = {"sum": np.sum, "prod": np.prod, "max": np.max}
        wanted = each[2] if reduction == "last" else together[reduction](each, axis=0)
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-7, atol=1e-10)


def test_llm_pruner_of_a_layer_takes_its_gradients_or_says_so():
    plain = ffn()
    gradients_plainly(plain)
    layer, strategy = plain.blocks[0].up, get_pruning_strategy("llm_pruner")
    wanted = np.abs(array(layer.weight) * array(layer.weight.grad)).sum(1)
    close(strategy.score(layer), wanted)
    close(strategy.score(ffn().blocks[0].up, gradients=layer.weight.grad), wanted)
    with pytest.raises(MissingLossError, match="gradients"):
        strategy.score(ffn().blocks[0].up)
    with pytest.raises(InvalidValueError, match="did you mean 'vector'"):
        get_pruning_strategy("llm_pruner", level="vectors")


def owl_plainly(scores: dict[str, np.ndarray], amount: float) -> dict[str, float]:
    """As the authors' code has it: ratios in percent, brought to a width of 2 lambda."""
    ratios = np.array([100 * (s > 5 * s.mean()).mean() for s in scores.values()])
    ratios = (ratios - ratios.min()) * (1 / (ratios.max() - ratios.min()) * 0.08 * 2)
    density = ratios - ratios.mean() + (1 - amount)
    return dict(zip(scores, 1 - density, strict=True))


def test_owl_prunes_layers_with_outliers_less_and_meets_the_total():
    model = ffn()
    with torch.no_grad():
        model.blocks[1].down.weight[0, :2] *= 40
    names = ["blocks.*.up", "blocks.*.down"]
    strategy = get_pruning_strategy("owl", structured=False)
    scores = strategy.scores(model, rows(), layers=names)
    masks = strategy.masks(model, scores, 0.5)
    wanted = owl_plainly({n: s.numpy() for n, s in scores.items()}, 0.5)
    assert sum(int((~m).sum()) for m in masks.values()) == 120
    for name, mask in masks.items():
        counts = (~mask).sum(1)
        assert float((~mask).double().mean()) == pytest.approx(wanted[name], abs=1 / 60)
        assert int(counts.max() - counts.min()) <= 1, "rows lose alike"
    assert (~masks["blocks.1.down"]).sum() < (~masks["blocks.0.down"]).sum()


def test_owl_is_a_distribution_of_any_strategy_with_ratios_given():
    model = ffn()
    strategy = get_pruning_strategy("wanda", distribution="owl")
    scores = strategy.scores(model, rows())
    outliers = {DOWN[0]: 0.0, DOWN[1]: 0.01}
    masks = strategy.masks(model, scores, 0.5, outliers=outliers, spread=0.2)
    assert [int((~masks[n]).sum()) for n in DOWN] == [7, 3]
    with pytest.raises(InvalidValueError, match=r"no ratio of layer 'blocks.1.down'"):
        strategy.masks(model, scores, 0.5, outliers={DOWN[0]: 0.1})


def slimllm_plainly(block: nn.Module, x: np.ndarray, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As the authors' code has it."""
    gate, up, down = (array(m.weight) for m in (block.gate, block.up, block.down))
    centred = y - y.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.abs(values)
    share = 1 / (1 + np.exp(-values / values.mean()))
    along = np.abs(down.T @ vectors) * share
    norm_x, norm_u = (np.sqrt((v**2).sum(0)) for v in (x, u))
    own = np.linalg.norm(along * norm_u[:, None], axis=1)
    return own + sum(np.linalg.norm(w * norm_x, axis=1) for w in (gate, up))


def test_slimllm_weighs_columns_along_the_directions_of_the_output():
    model, batches = ffn(), rows()
    found = get_pruning_strategy("slimllm").scores(model, batches)
    for block, name in zip(model.blocks, DOWN, strict=True):
        x, _ = caught(model, name.replace("down", "up"), batches)
        u, y = caught(model, name, batches)
        wanted = slimllm_plainly(block, array(x), array(u), array(y))
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-8)


def test_slimllm_recovery_is_a_regression_of_every_output_channel():
    model, batches = ffn(), rows()
    keep = torch.arange(UNITS) % 3 != 0
    found = get_pruning_strategy("slimllm").recovery(model, {DOWN[0]: keep}, batches)
    u, y = caught(model, DOWN[0], batches)
    partial = array(linear(u[:, keep], model.blocks[0].down.weight[:, keep]))
    slope, bias = found[DOWN[0]]
    for channel in range(WIDTH):
        a, b = np.polyfit(partial[:, channel], array(y)[:, channel], 1)
        assert float(slope[channel]) == pytest.approx(a, rel=1e-8)
        assert float(bias[channel]) == pytest.approx(b, rel=1e-8)


def test_slimllm_shares_by_a_softmax_of_similarities():
    model = ffn()
    strategy = get_pruning_strategy("slimllm", distribution="slimllm")
    scores = strategy.scores(model, rows())
    similarity = {DOWN[0]: 0.9, DOWN[1]: 0.8}
    masks = strategy.masks(model, scores, 0.5, similarity=similarity)
    part = np.exp(9) / (np.exp(9) + np.exp(8))
    assert int((~masks[DOWN[0]]).sum()) == round(10 * part)
    assert sum(int((~m).sum()) for m in masks.values()) == 10
    with pytest.raises(InvalidValueError, match="similarity"):
        strategy.masks(model, scores, 0.5)


@pytest.mark.parametrize(
    "name", ["wanda", "ria", "flap", "llm_pruner", "owl", "slimllm", "sparsegpt"]
)
def test_a_mask_of_whole_rows_is_exact_and_nothing_of_the_layer_changes(name):
    plain = ffn()
    gradients_plainly(plain)
    layer = plain.blocks[0].up
    before = layer.weight.detach().clone(), layer.weight.grad.clone()
    mask = get_pruning_strategy(name).prune(layer, rows()[0][0], 0.45)
    assert mask.shape == layer.weight.shape
    assert int((~mask.any(1)).sum()) == 4 and bool((mask.all(1) | ~mask.any(1)).all())
    assert torch.equal(layer.weight, before[0]) and torch.equal(layer.weight.grad, before[1])


def test_a_failing_stream_leaves_the_model_as_it_was():
    model = ffn()
    state = copy.deepcopy(model.state_dict())
    bad = [rows()[0], (torch.full((3, WIDTH), torch.nan, dtype=torch.float64), torch.zeros(3))]
    with pytest.raises(ValueError, match=r"strategy 'wanda'.*NaN"):
        get_pruning_strategy("wanda").scores(model, bad)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
