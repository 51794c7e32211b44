"""Shrinking language models: FFN units and key-value groups, and what a configuration can say."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nodelens import ModelWrapper
from nodelens.errors import IncompatibleModelError, InvalidValueError, ShapeError, SurgeryError
from nodelens.model.packaged import packaged_model
from nodelens.pruning import load_shrunk, save_shrunk, shrink
from tests.model.families import down_projections, language_model, text
from tests.pruning.shrinkable import assert_untouched, keeping, snapshot

SILENT = [0, 3, 4, 5, 9, 11, 12, 14, 17, 21, 22, 30, 39]


def logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch, use_cache=False).logits


def masked(
    model: nn.Module, inputs: Mapping[str, list[int]], batch: Mapping[str, Tensor]
) -> Tensor:
    """Logits with some inputs of the named layers zero, by hooks of torch's own."""

    def hook(silent: list[int]) -> object:
        return lambda module, args: (args[0].index_fill(-1, torch.tensor(silent), 0),)

    handles = [
        model.get_submodule(name).register_forward_pre_hook(hook(silent))
        for name, silent in inputs.items()
    ]
    try:
        return logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def close(found: Tensor, wanted: Tensor) -> None:
    assert float((found - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max())


def reloaded(model: nn.Module, folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPT-2", "OPT", "Phi-3"])
def test_ffn_units_go_and_transformers_loads_what_is_left(family, tmp_path):
    model, batch = language_model(family), text([6, 4])
    names = down_projections(family)
    width = ModelWrapper(model).layers[names[0]].inputs
    before = snapshot(model)
    masks = {name: keeping(width, SILENT) for name in names}
    found = shrink(model, masks, batch, rounds=0)
    assert_untouched(model, before)
    kept = -(-(width - 13) // 8) * 8
    assert {name: w for name, (_, w) in found.report.input_widths.items()} == dict.fromkeys(
        names, kept
    )
    assert found.report.padded == dict.fromkeys(names, kept - (width - 13))
    wanted = masked(model, dict.fromkeys(names, SILENT), batch)
    assert not torch.allclose(wanted, logits(model, batch), atol=1e-4), "nothing was at stake"
    close(logits(found.model, batch), wanted)
    assert found.report.pretrained
    again = reloaded(found.model, tmp_path)
    assert torch.equal(logits(again, batch), logits(found.model, batch))


def test_parameters_of_a_shrunk_llama_are_counted_by_hand():
    model, batch = language_model("Llama"), text([6, 4])
    names = down_projections("Llama")
    masks = {name: keeping(40, SILENT[:8]) for name in names}
    report = shrink(model, masks, batch, rounds=0).report
    # 2 blocks, gate, up and down, 8 units of a hidden width of 16
    assert report.parameters.before - report.parameters.after == 2 * 3 * 8 * 16
    assert report.bytes.before - report.bytes.after == 4 * 2 * 3 * 8 * 16
    assert report.macs.before - report.macs.after == 12 * 2 * 3 * 8 * 16
    assert report.padded == {}


@pytest.mark.parametrize("name", ["gate_proj", "up_proj", "down_proj"])
def test_an_ffn_may_go_by_the_name_of_any_of_its_projections(name):
    model, batch = language_model("Llama"), text([6, 4])
    downs = down_projections("Llama")
    masks = {d.replace("down_proj", name): keeping(40, SILENT) for d in downs}
    close(
        logits(shrink(model, masks, batch, rounds=0).model, batch),
        masked(model, dict.fromkeys(downs, SILENT), batch),
    )


def test_masks_of_gate_and_up_that_disagree_name_both():
    model = language_model("Llama")
    masks = {
        "model.layers.0.mlp.gate_proj": keeping(40, [1]),
        "model.layers.0.mlp.up_proj": keeping(40, [2]),
    }
    with pytest.raises(SurgeryError, match=r"'model.layers.0.mlp.gate_proj' and .* disagree"):
        shrink(model, masks, text([6, 4]))


def attention(model: nn.Module) -> dict[str, int]:
    layers = ModelWrapper(model).layers.values()
    return {layer.name: layer.key_value_heads for layer in layers if layer.heads}


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Phi-3"])
def test_key_value_groups_go_whole_and_transformers_loads_what_is_left(family, tmp_path):
    model, batch = language_model(family), text([6, 4])
    outputs = list(attention(model))
    before = snapshot(model)
    found = shrink(model, {name: keeping(2, [0]) for name in outputs}, batch, rounds=0)
    assert_untouched(model, before)
    # 4 heads of 4 share 2 key-value groups: of 16 columns the first 8 go
    wanted = masked(model, {key: list(range(8)) for key in outputs}, batch)
    assert not torch.allclose(wanted, logits(model, batch), atol=1e-4), "nothing was at stake"
    close(logits(found.model, batch), wanted)
    config = found.model.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 1)
    assert model.config.num_attention_heads == 4
    bias = 8 + 4 + 4 if family == "Qwen2" else 0
    gone = found.report.parameters.before - found.report.parameters.after
    assert gone == 2 * (16 * (8 + 4 + 4 + 8) + bias)
    again = reloaded(found.model, tmp_path)
    assert torch.equal(logits(again, batch), logits(found.model, batch))


def test_heads_name_their_group_and_no_part_of_one_goes():
    model, batch = language_model("Llama"), text([6, 4])
    outputs = list(attention(model))
    by_group = shrink(model, {n: keeping(2, [1]) for n in outputs}, batch, rounds=0).model
    by_head = shrink(model, {n: keeping(4, [2, 3]) for n in outputs}, batch, rounds=0).model
    assert torch.equal(logits(by_group, batch), logits(by_head, batch))
    with pytest.raises(InvalidValueError, match="key-value group 0 are kept in part"):
        shrink(model, {outputs[0]: keeping(4, [1])}, batch)
    with pytest.raises(ShapeError, match=r"expected \(2,\)"):
        shrink(model, {outputs[0]: keeping(16, [1])}, batch)


@pytest.mark.parametrize("family", ["GPT-2", "OPT"])
def test_heads_that_no_configuration_can_say_are_kept_in_a_manifest(family, tmp_path):
    model, batch = language_model(family), text([6, 4])
    masks = {name: keeping(4, [2]) for name in attention(model)}
    with pytest.raises(SurgeryError, match=r"no configuration of .* uniform=False"):
        shrink(model, masks, batch, rounds=0)
    found = shrink(model, masks, batch, rounds=0, uniform=False)
    assert not found.report.pretrained
    close(logits(found.model, batch), masked(model, {key: [8, 9, 10, 11] for key in masks}, batch))
    save_shrunk(found, tmp_path)
    again = load_shrunk(tmp_path, model.config)
    assert torch.equal(logits(again, batch), logits(found.model, batch))


def test_heads_laid_out_otherwise_are_refused():
    model = language_model("GPT-NeoX")
    before = snapshot(model)
    masks = {name: keeping(4, [2]) for name in attention(model)}
    with pytest.raises(SurgeryError, match="differs from the masked one's"):
        shrink(model, masks, text([6, 4]), uniform=False)
    assert_untouched(model, before)


def test_unequal_widths_are_refused_or_kept_in_a_manifest(tmp_path):
    model, batch = language_model("Llama"), text([6, 4])
    first, second = down_projections("Llama")
    masks = {first: keeping(40, SILENT), second: keeping(40, SILENT[:3])}
    with pytest.raises(SurgeryError, match=r"layers.0.mlp.down_proj' 32, .* 40\).*uniform=False"):
        shrink(model, masks, batch)
    found = shrink(model, masks, batch, round_to=1, uniform=False, rounds=0)
    assert found.report.input_widths == {first: (40, 27), second: (40, 37)}
    assert found.model.config.intermediate_size == 40
    close(logits(found.model, batch), masked(model, {first: SILENT, second: SILENT[:3]}, batch))
    save_shrunk(found, tmp_path)
    for original in (model, ModelWrapper(model), model.config):
        again = load_shrunk(tmp_path, original)
        assert torch.equal(logits(again, batch), logits(found.model, batch))


def test_units_and_groups_go_together():
    model, batch = language_model("Llama"), text([6, 4])
    downs, outputs = down_projections("Llama"), list(attention(model))
    masks = {**{n: keeping(40, SILENT) for n in downs}, **{n: keeping(2, [0]) for n in outputs}}
    found = shrink(model, masks, batch, rounds=0)
    silent = {**dict.fromkeys(downs, SILENT), **{key: list(range(8)) for key in outputs}}
    close(logits(found.model, batch), masked(model, silent, batch))


@pytest.mark.parametrize(
    ("name", "width", "text_of"),
    [
        ("model.layers.0.self_attn.k_proj", 8, "give the mask under 'model.layers.0.self_attn.o"),
        ("lm_head", 32, "only units of FFNs and key-value groups"),
    ],
)
def test_other_layers_of_a_model_with_attention_are_refused(name, width, text_of):
    with pytest.raises(IncompatibleModelError, match=text_of):
        shrink(language_model("Llama"), {name: keeping(width, [1])}, text([6, 4]))


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_smollm2_is_loaded_by_transformers_and_says_what_the_mask_says(amount, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(packaged_model("smollm2-135m")).eval()
    batch = {"input_ids": torch.arange(100, 140)[None]}
    masks, silent = {}, {}
    for number, block in enumerate(model.model.layers):
        scores = block.mlp.down_proj.weight.detach().norm(dim=0)
        removed = scores.argsort()[: int(amount * 1536)].tolist()
        name = f"model.layers.{number}.mlp.down_proj"
        masks[name], silent[name] = keeping(1536, removed), removed
    found = shrink(model, masks, batch, rounds=1)
    wanted, left = masked(model, silent, batch), int((1 - amount) * 1536)
    report = found.report
    assert report.parameters.before - report.parameters.after == 30 * 3 * 576 * (1536 - left)
    del model, block, scores
    gc.collect()
    found.model.save_pretrained(tmp_path)
    del found
    gc.collect()
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    assert again.config.intermediate_size == left
    close(logits(again, batch), wanted)
