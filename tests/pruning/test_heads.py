"""Heads that FLAP prunes: scores by hand, masks that silence and shrink, a bias for their mean."""

from __future__ import annotations

from copy import deepcopy

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
