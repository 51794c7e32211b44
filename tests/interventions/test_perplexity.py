"""Perplexity by its protocol: windows counted by hand, the loss of blocks by transformers."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from nodelens.data.text import Document
from nodelens.errors import InvalidValueError, ShapeError, SharedDataWarning, TooFewRowsError
from nodelens.interventions import perplexity
from tests.model.families import language_model

DOWN = "model.layers.0.mlp.down_proj"


class Letters:
    """A token a letter; 1 ends a text."""

    eos_token_id = 1

    def __call__(self, text: str, /, *, add_special_tokens: bool, verbose: bool) -> Any:
        return {"input_ids": [2 + ord(letter) % 30 for letter in text]}


def ids(documents: list[str]) -> list[int]:
    return [i for d in documents for i in [*(2 + ord(letter) % 30 for letter in d), 1]]


DOCUMENTS = ["a channel is a row", "of a weight", "and the loss says what it is for", "the end"]


def by_hand(model: nn.Module, tokens: list[int], size: int, stride: int) -> list[list[float]]:
    """The loss of every new token of every window, by a loop over tokens."""
    found, seen = [], 1
    for start in range(0, len(tokens) - size + 1, stride):
        window = tokens[start : start + size]
        with torch.no_grad():
            chances = log_softmax(model(torch.tensor([window])).logits[0].double(), -1)
        first = max(seen - start, 1)
        found.append([-float(chances[t - 1, window[t]]) for t in range(first, size)])
        seen = start + size
    return found


@pytest.mark.parametrize(("size", "stride"), [(8, None), (8, 8), (8, 3), (8, 7), (8, 1), (30, 20)])
def test_every_new_token_counts_once(size: int, stride: int | None):
    model = language_model("Llama")
    losses = by_hand(model, ids(DOCUMENTS), size, stride or size)
    found = perplexity(
        model, DOCUMENTS, tokenizer=Letters(), block_size=size, stride=stride, batch_size=3
    )
    flat = [loss for block in losses for loss in block]
    assert (found.tokens, found.blocks) == (len(flat), len(losses))
    assert found.loss == pytest.approx(sum(flat) / len(flat), rel=1e-5)
    assert found.value == pytest.approx(math.exp(sum(flat) / len(flat)), rel=1e-5)


def test_blocks_are_what_transformers_says_of_them():
    model = language_model("GPT-2")
    blocks = torch.tensor(ids(DOCUMENTS))[:48].view(6, 8)
    with torch.no_grad():
        each = [float(model(row[None], labels=row[None]).loss) for row in blocks]
    found = perplexity(model, {"input_ids": blocks, "attention_mask": torch.ones_like(blocks)})
    assert found.value == pytest.approx(math.exp(sum(each) / 6), rel=1e-5)
    assert found.tokens == 6 * 7 and found.documents is None and found.stride == 8
    # All blocks predict equally much: the error of a plain mean.
    error = float(torch.tensor(each).std()) / 6**0.5
    assert found.standard_error == pytest.approx(found.value * error, rel=1e-4)
    assert perplexity(model, blocks[:1]).standard_error is None


def test_padding_in_blocks_is_not_predicted():
    model, blocks = language_model("Llama"), torch.tensor(ids(DOCUMENTS))[:16].view(2, 8)
    mask = torch.ones_like(blocks)
    mask[1, 5:] = 0
    found = perplexity(model, {"input_ids": blocks, "attention_mask": mask})
    losses = by_hand(model, blocks[0].tolist(), 8, 8) + by_hand(model, blocks[1, :5].tolist(), 5, 5)
    assert found.tokens == 7 + 4
    assert found.loss == pytest.approx(sum(map(sum, losses)) / 11, rel=1e-5)


def test_a_uniform_model_has_the_size_of_its_vocabulary():
    class Uniform(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(32, 32)

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            return 0 * self.words(input_ids)

    found = perplexity(Uniform(), DOCUMENTS, tokenizer=Letters(), block_size=9)
    assert found.value == pytest.approx(32) and found.standard_error == pytest.approx(0, abs=1e-5)


def test_silenced_channels_and_heads():
    model = language_model("Llama")
    without = copy.deepcopy(model)
    with torch.no_grad():
        without.get_submodule(DOWN).weight[:, [1, 7]] = 0
    options: dict[str, Any] = {"tokenizer": Letters(), "block_size": 8}
    expected = perplexity(without, DOCUMENTS, **options)
    found = perplexity(model, DOCUMENTS, channels={DOWN: [1, 7]}, site="input", **options)
    assert found.value == pytest.approx(expected.value, rel=1e-5) and found.silenced == 2
    heads = {"model.layers.1.self_attn.o_proj": [0]}
    assert perplexity(model, DOCUMENTS, heads=heads, **options).silenced == 4


def test_the_protocol_is_printed():
    model = language_model("Llama")
    found = perplexity(
        model,
        [Document("one", DOCUMENTS[0]), Document("two", DOCUMENTS[2])],
        tokenizer=Letters(),
        block_size=8,
        stride=4,
        split="held out",
        max_tokens=21,
    )
    # Of 21 tokens: windows at 0, 4, 8, 12; 7 tokens, and 4 new ones thrice.
    assert (found.blocks, found.tokens) == (4, 19)
    assert str(found) == (
        f"perplexity {found.value:.4g} ± {found.standard_error:.2g} (standard error over 4 "
        "blocks): split 'held out' of 2 documents, of at most 21 tokens; blocks of 8 tokens, "
        "stride 4; 19 tokens predicted; float32; nothing silenced"
    )


def test_texts_and_blocks_that_were_calibrated_on_give_a_warning():
    model = language_model("Llama")
    options: dict[str, Any] = {"tokenizer": Letters(), "block_size": 8}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perplexity(model, DOCUMENTS[:2], calibration=DOCUMENTS[2:], **options)
    with pytest.warns(SharedDataWarning, match="1 of "):
        perplexity(model, DOCUMENTS[:2], calibration=DOCUMENTS[1:], **options)
    blocks = torch.tensor(ids(DOCUMENTS))[:48].view(6, 8)
    with pytest.warns(SharedDataWarning, match="2 of 6 different rows"):
        perplexity(model, blocks, calibration=[{"input_ids": blocks[[1, 3]]}])


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (DOCUMENTS, {}, InvalidValueError, "documents need a tokenizer=, and the model has none"),
        (DOCUMENTS, {"tokenizer": Letters()}, TooFewRowsError, "hold 72 tokens, .* block of 512"),
        (
            DOCUMENTS,
            {"tokenizer": Letters(), "block_size": 8, "stride": 9},
            InvalidValueError,
            "block_size is 8 and stride 9, expected",
        ),
        (
            torch.zeros(2, 8).long(),
            {"stride": 4},
            InvalidValueError,
            "blocks of 8 tokens are given",
        ),
        (torch.zeros(2, 8), {}, ShapeError, r"blocks of shape \(2, 8\) and torch.float32"),
        (torch.zeros(2, 8).long(), {"batch_size": 0}, InvalidValueError, "batch_size is 0"),
        ([3], {}, InvalidValueError, "a int is no document, expected text"),
        (3, {}, InvalidValueError, "a int is neither documents nor blocks"),
        ({"text": "a"}, {}, InvalidValueError, "a mapping of text has no tensor of input_ids"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    data: Any, options: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        perplexity(language_model("Llama"), data, **options)
