"""Heads that FLAP and SlimLLM prune: scores by hand, masks that silence and shrink, and search."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from nodelens import Lens
from nodelens.interventions import evaluate
from nodelens.pruning import get_pruning_strategy, shrink
from nodelens.pruning.sensitivity import evaluate_masks
from tests.pruning.networks import array, caught, weights
from tests.pruning.test_baselines_llm import flap_plainly

transformers = pytest.importorskip("transformers")
OUT = [f"model.layers.{i}.self_attn.o_proj" for i in range(2)]


@pytest.fixture(scope="module")
def llama():
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).double().eval()


TOKENS = torch.randint(0, 31, (4, 11), generator=torch.Generator().manual_seed(0))


def test_a_group_has_the_mean_of_its_heads_standardised_columns(llama):
    found = get_pruning_strategy("flap", heads=True).scores(llama, [TOKENS])
    assert (
        sorted(name.split(".", 3)[3] for name in found)
        == ["mlp.down_proj"] * 2 + ["self_attn.o_proj"] * 2
    )
    for name in OUT:
        x, _ = caught(llama, name, [(TOKENS, None)])
        columns = flap_plainly(weights(llama, name), array(x).reshape(-1, 16))
        wanted = torch.from_numpy(columns.reshape(4, 4).mean(1))
        torch.testing.assert_close(found[name], wanted)
    assert not set(OUT) & set(get_pruning_strategy("flap").scores(llama, [TOKENS]))


def test_masks_of_groups_silence_whole_heads_and_shrink(llama):
    strategy = get_pruning_strategy("flap", heads=True, distribution="global_threshold")
    scores = strategy.scores(llama, [TOKENS], layers=OUT)
    masks = strategy.masks(llama, scores, 0.5)
    assert [len(mask) for mask in masks.values()] == [4, 4]
    assert sum(int((~mask).sum()) for mask in masks.values()) == 4
    copy = deepcopy(llama)
    for name, keep in masks.items():
        copy.get_submodule(name).weight.data[:, (~keep).repeat_interleave(4)] = 0
    assert evaluate_masks(llama, [TOKENS], masks).loss == pytest.approx(
        evaluate(copy, [TOKENS]).loss
    )
    assert shrink(llama, masks, TOKENS, uniform=False).report.difference < 1e-9


def test_the_probe_prunes_heads_and_units(llama):
    options = {"heads": True}
    found = Lens.from_name("prune_flap", amount=0.5, options=options).analyse(llama, TOKENS)
    strategy = get_pruning_strategy("flap", heads=True)
    masks = strategy.masks(llama, strategy.scores(llama, [TOKENS]), 0.5)
    assert {len(mask) for mask in masks.values()} == {4, 12}
    wanted = evaluate_masks(llama, [TOKENS], masks).loss
    assert float(found["model"]["loss_pruned"]) == pytest.approx(wanted)


def test_the_bias_for_removed_heads_is_silencing_with_their_mean(llama):
    strategy = get_pruning_strategy("flap", heads=True)
    means = strategy.means(llama, [TOKENS], layers=OUT)
    keep = torch.tensor([True, False, False, True])
    bias = strategy.compensation(llama, {OUT[0]: keep}, means)[OUT[0]]
    x, _ = caught(llama, OUT[0], [(TOKENS, None)])
    gone = (~keep).repeat_interleave(4)
    wanted = llama.get_submodule(OUT[0]).weight[:, gone] @ x.flatten(0, 1).mean(0)[gone]
    torch.testing.assert_close(bias, wanted.detach())


def test_flap_counts_weights_as_published_not_groups(llama):
    """As the authors' code has it: a head counts for as many units as it has their weights."""
    strategy = get_pruning_strategy("flap", heads=True)
    scores = strategy.scores(llama, [TOKENS])
    masks = strategy.masks(llama, scores, 0.4)
    # A group: two heads of queries and outputs and one of keys and values, 2 channels each.
    cost = {name: 6 * 2 * 16 if name in OUT else 3 * 16 for name in scores}
    pool = sorted((float(s), cost[name], name) for name in scores for s in scores[name])
    budget, removed = 0.4 * sum(c for _, c, _ in pool), dict.fromkeys(scores, 0)
    for _, c, name in pool:
        if (budget := budget - c) < 0:
            break
        removed[name] += 1
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == removed
    assert sum(removed.values()) != int(0.4 * len(pool)), "units counted alike would be another set"
    even = get_pruning_strategy("flap", heads=True, distribution="global_threshold")
    assert sum(int((~m).sum()) for m in even.masks(llama, scores, 0.4).values()) == 12


def similarity_plainly(x: np.ndarray, w: np.ndarray, kept: list[int]) -> float:
    """As the authors' code has it: outputs by group, and correlations channel by channel."""
    parts = [x[:, 4 * g : 4 * g + 4] @ w[:, 4 * g : 4 * g + 4].T for g in range(4)]
    whole, some = sum(parts), sum(parts[g] for g in kept)
    return sum(abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(whole.T, some.T, strict=True))


def searched_plainly(x: np.ndarray, w: np.ndarray, scores: np.ndarray, gone: int) -> set[int]:
    order = np.argsort(scores, kind="stable").tolist()
    candidates, kept = order[:gone], order[gone:]
    best = similarity_plainly(x, w, kept)
    for candidate in candidates:
        trials = [[*kept[:i], candidate, *kept[i + 1 :]] for i in range(len(kept))]
        found = [similarity_plainly(x, w, trial) for trial in trials]
        if max(found) > best:
            best, kept = max(found), trials[int(np.argmax(found))]
    return set(kept)


def test_slimllm_scores_a_group_by_the_output_without_it(llama):
    found = get_pruning_strategy("slimllm", heads=True).scores(llama, [TOKENS])
    for name in OUT:
        x, w = array(caught(llama, name, [(TOKENS, None)])[0]).reshape(-1, 16), weights(llama, name)
        wanted = [-similarity_plainly(x, w, [h for h in range(4) if h != g]) for g in range(4)]
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-9)
    assert not set(OUT) & set(get_pruning_strategy("slimllm").scores(llama, [TOKENS]))


def test_slimllm_searches_for_groups_that_go_well_together(llama):
    model, strategy = deepcopy(llama), get_pruning_strategy("slimllm", heads=True)
    with torch.no_grad():
        # The first two groups give the same but for a little: one stands in for both.
        attention = model.model.layers[0].self_attn
        for layer, size in ((attention.q_proj, 4), (attention.k_proj, 2), (attention.v_proj, 2)):
            layer.weight[size : 2 * size] = layer.weight[:size] * 1.01
        attention.o_proj.weight[:, 4:8] = attention.o_proj.weight[:, :4]
    scores = strategy.scores(model, [TOKENS], layers=OUT)
    masks = strategy.masks(model, scores, 0.5)
    found = strategy.search(model, masks, [TOKENS])
    for name in OUT:
        x, w = array(caught(model, name, [(TOKENS, None)])[0]).reshape(-1, 16), weights(model, name)
        wanted = searched_plainly(x, w, scores[name].numpy(), 2)
        assert set(found[name].nonzero().flatten().tolist()) == wanted
        assert int(found[name].sum()) == int(masks[name].sum()) == 2
    assert any(not torch.equal(found[name], masks[name]) for name in OUT), "the search does nothing"


def test_slimllm_recovery_of_heads_is_a_regression_of_every_output_channel(llama):
    keep = torch.tensor([True, False, True, True])
    slope, bias = get_pruning_strategy("slimllm").recovery(llama, {OUT[0]: keep}, [TOKENS])[OUT[0]]
    x, y = (t.flatten(0, 1) for t in caught(llama, OUT[0], [(TOKENS, None)]))
    kept = keep.repeat_interleave(4)
    partial = array(x[:, kept]) @ weights(llama, OUT[0])[:, kept].T
    for channel in range(16):
        a, b = np.polyfit(partial[:, channel], array(y)[:, channel], 1)
        assert float(slope[channel]) == pytest.approx(a, rel=1e-7)
        assert float(bias[channel]) == pytest.approx(b, rel=1e-7, abs=1e-12)
