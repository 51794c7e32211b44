"""Tiny language models of many families, with random weights, and ragged text for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.oracles.capture import Plain

VOCABULARY = 32

_GATED = {
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
_PLAIN = {**_GATED, "intermediate_size": 64}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
_OPT = {
    "hidden_size": 16,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 16,
    # OPT's own ReLU leaves units that never fire in a few tokens: no case for an oracle.
    "activation_function": "gelu",
}
_HEADS = {"num_key_value_heads": 4}

FAMILIES: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "Llama": ("LlamaConfig", _GATED, "model.layers.{}.mlp.down_proj"),
    "Llama, as wide as its FFN": (
        "LlamaConfig",
        {**_GATED, **_HEADS, "intermediate_size": 16},
        "model.layers.{}.mlp.down_proj",
    ),
    "Qwen2": ("Qwen2Config", _GATED, "model.layers.{}.mlp.down_proj"),
    "Qwen3": ("Qwen3Config", {**_GATED, "head_dim": 8}, "model.layers.{}.mlp.down_proj"),
    "Mistral": ("MistralConfig", _GATED, "model.layers.{}.mlp.down_proj"),
    "Gemma": ("GemmaConfig", {**_GATED, "head_dim": 8}, "model.layers.{}.mlp.down_proj"),
    "GPT-2": ("GPT2Config", _GPT2, "transformer.h.{}.mlp.c_proj"),
    "GPT-NeoX": ("GPTNeoXConfig", _PLAIN, "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    "OPT": ("OPTConfig", _OPT, "model.decoder.layers.{}.fc2"),
    "OPT, norm last": (
        "OPTConfig",
        {**_OPT, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
        "model.decoder.layers.{}.fc2",
    ),
    "Phi": ("PhiConfig", {**_PLAIN, **_HEADS}, "model.layers.{}.mlp.fc2"),
    "Phi-3": ("Phi3Config", _GATED, "model.layers.{}.mlp.down_proj"),
}
"""Config class, its options, and the name of a block's down projection."""


def down_projections(family: str) -> list[str]:
    return [FAMILIES[family][2].format(block) for block in range(2)]


def language_model(family: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a causal language model with two blocks and weights large enough to matter."""
    import transformers

    kind, options, _ = FAMILIES[family]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "vocab_size": VOCABULARY}
    config = getattr(transformers, kind)(**options, **special)
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(8)
    return model.to(dtype).eval()


def bert(head: str = "BertModel", **options: Any) -> nn.Module:
    """Return a tiny BERT, whose blocks have a child named `output`."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        **options,
    )
    torch.manual_seed(4)
    return getattr(transformers, head)(config).eval()


def text(lengths: list[int], *, side: str = "right", seed: int = 0) -> dict[str, Tensor]:
    """Return token numbers as a tokenizer does, one text a length, padded on one side."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        own = slice(0, length) if side == "right" else slice(longest - length, longest)
        ids[row, own] = torch.randint(2, VOCABULARY, (length,), generator=generator)
        mask[row, own] = 1
    return {"input_ids": ids, "attention_mask": mask}


def plain(batch: Mapping[str, Tensor]) -> Plain:
    """Return what a plain loop does with a batch of text: next tokens, padding left out."""
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()

    def loss(outputs: Any) -> Tensor:
        predicted = (mask[:, 1:] & mask[:, :-1]).reshape(-1)
        logits = outputs.logits[:, :-1].reshape(-1, VOCABULARY)[predicted]
        return cross_entropy(logits, ids[:, 1:].reshape(-1)[predicted], reduction="sum")

    return Plain(kwargs=dict(batch), loss=loss, mask=mask)
