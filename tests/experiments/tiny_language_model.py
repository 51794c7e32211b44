"""A Llama with random weights and a tokenizer of letters, in a folder: what a hub would give."""

from __future__ import annotations

import string
from pathlib import Path


def write_language_model(folder: Path, *, layers: int = 2) -> Path:
    """Write the model and its tokenizer to `folder`, and return it."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", "<unknown>", *string.printable]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("[^\\n]|\\n"), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=layers,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=64,
                tie_word_embeddings=False,
            )
        )
    model.save_pretrained(folder)
    return folder
