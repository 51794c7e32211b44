"""Scores of attention heads on language models of many families, and on attention of one's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, MetricLens
from nodelens.errors import IncompatibleModelError, InvalidValueError
from nodelens.metrics import get_metric
from nodelens.model import wrap
from nodelens.testing.subjects import TOKENS
from tests.model.families import bert, language_model, plain, text
from tests.oracles.attention import heads
from tests.oracles.capture import Plain, capture

NAMES = ["attn_activation_power", "attn_gradient_power", "attn_taylor", "attn_loss_proxy"]
BATCHES = [[9, 6, 9, 4], [5, 7]]
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-9}

# Family, name of a block's output projection, width of a head, heads, key-value heads.
PROJECTIONS = [
    ("Llama", "model.layers.{}.self_attn.o_proj", 4, 4, 2),
    ("Qwen3", "model.layers.{}.self_attn.o_proj", 8, 4, 2),
    ("GPT-2", "transformer.h.{}.attn.c_proj", 4, 4, 4),
    ("GPT-NeoX", "gpt_neox.layers.{}.attention.dense", 4, 4, 4),
    ("OPT", "model.decoder.layers.{}.self_attn.out_proj", 4, 4, 4),
    ("Phi-3", "model.layers.{}.self_attn.o_proj", 4, 4, 2),
]
OTHERS = [
    ("Qwen2", "model.layers.{}.self_attn.o_proj", 4, 4, 2),
    ("Gemma", "model.layers.{}.self_attn.o_proj", 8, 4, 2),
    ("Phi", "model.layers.{}.self_attn.dense", 4, 4, 4),
]


def composite(**options: Any) -> CompositeLens:
    return CompositeLens([Lens.from_name(name, **options) for name in NAMES])


@pytest.mark.parametrize(
    ("family", "name", "size", "count", "shared"), PROJECTIONS + OTHERS, ids=lambda v: str(v)
)
def test_output_projections_and_their_heads_are_found(
    family: str, name: str, size: int, count: int, shared: int
):
    layers = wrap(language_model(family)).layers.values()
    found = {layer.name: layer for layer in layers if layer.heads}
    assert list(found) == [name.format(block) for block in range(2)]
    for layer in found.values():
        assert (layer.heads, layer.key_value_heads, layer.inputs) == (count, shared, size * count)


class Attention(nn.Module):
    """Linear layers by name, `{name: (inputs, outputs)}`, and what the module says of itself."""

    def __init__(self, layers: dict[str, tuple[int, int]], **said: Any) -> None:
        super().__init__()
        for name, shape in layers.items():
            self.add_module(name, nn.Linear(*shape))
        for name, value in said.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("layers", "said", "expected"),
    [
        ({"q_proj": (6, 12), "k_proj": (6, 3), "o_proj": (12, 6)}, {"num_heads": 4}, (4, 1)),
        ({"q_proj": (6, 12), "k_proj": (6, 6), "o_proj": (12, 6)}, {"head_dim": 3}, (4, 2)),
        ({"qkv": (6, 20), "proj": (12, 6)}, {"heads": 6}, (6, 2)),
        # Of heads that differ from layer to layer only the module itself knows.
        ({"q_proj": (6, 12), "o_proj": (12, 6)}, {"num_heads": 2, "config": 4}, (2, 2)),
        ({"q_proj": (6, 12), "o_proj": (12, 6)}, {"config": 4}, (4, 4)),
        ({"q_proj": (6, 12), "o_proj": (12, 6)}, {}, (0, 0)),
        ({"q_proj": (6, 12), "o_proj": (12, 6)}, {"num_heads": 5}, (0, 0)),
        ({"q_proj": (6, 12), "out": (12, 6), "o_proj": (12, 6)}, {"num_heads": 4}, (0, 0)),
        ({"up": (6, 12), "dense": (12, 6)}, {"num_heads": 4}, (0, 0)),
    ],
)
def test_the_number_of_heads_is_what_is_said_and_fits(
    layers: dict[str, tuple[int, int]], said: dict[str, Any], expected: tuple[int, int]
):
    if "config" in said:
        said = {**said, "config": SimpleNamespace(num_attention_heads=said["config"])}
    blocks = nn.ModuleDict({"block": nn.ModuleDict({"attention": Attention(layers, **said)})})
    found = wrap(blocks).layers[f"block.attention.{list(layers)[-1]}"]
    assert (found.heads, found.key_value_heads) == expected


def test_a_projection_with_its_dropout_and_a_model_that_is_one_attention():
    diffusers = Attention({"to_q": (6, 12), "to_k": (6, 12), "to_v": (6, 12)}, heads=4)
    diffusers.to_out = nn.ModuleList([nn.Linear(12, 6), nn.Dropout(0.1)])
    assert wrap(diffusers).layers["to_out.0"].heads == 4
    assert wrap(TOKENS.model().attention).layers["output"].heads == 2


@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize(
    ("family", "name", "size", "side"),
    [(*row[:3], "left" if at % 2 else "right") for at, row in enumerate(PROJECTIONS)],
    ids=lambda v: str(v),
)
def test_heads_agree_with_the_oracle(
    family: str, name: str, size: int, side: str, dtype: torch.dtype
):
    model = language_model(family, dtype)
    batches = [text(lengths, side=side, seed=n) for n, lengths in enumerate(BATCHES)]
    result = composite().run(model, batches, progress=False)
    assert list(result) == [name.format(block) for block in range(2)]
    seen = capture(model, [plain(batch) for batch in batches], list(result))
    for layer, captured in seen.items():
        assert len(captured.inputs) == result.rows[layer] == sum(map(sum, BATCHES))
        expected = heads(captured.inputs, captured.input_gradients, size)
        for score, values in expected.items():
            rtol, found = RELATIVE[dtype], result[layer][score]
            np.testing.assert_allclose(found, values, rtol=rtol, err_msg=f"{layer}, {score}")


def test_heads_of_bert_agree_with_the_oracle():
    model, batch = bert().double(), text([9, 6, 4])

    def loss(outputs: Any, _: Any = None) -> Tensor:
        return outputs.last_hidden_state[:, 0].square().sum()

    result = composite().analyse(model, (batch, {"loss": loss}))
    assert list(result) == [f"encoder.layer.{n}.attention.output.dense" for n in range(2)]
    plainly = Plain(kwargs=batch, loss=loss, mask=batch["attention_mask"].bool())
    for layer, captured in capture(model, [plainly], list(result)).items():
        expected = heads(captured.inputs, captured.input_gradients, 4)
        for score, values in expected.items():
            # All but the first token leave no trace in the loss of the last block.
            np.testing.assert_allclose(result[layer][score], values, rtol=1e-9, atol=1e-15)


def test_query_heads_that_share_a_key_are_one_slice():
    model, batch = language_model("Qwen3", torch.float64), text([9, 6, 4])
    result = composite(per="key_value_head").analyse(model, batch)
    for layer, captured in capture(model, [plain(batch)], list(result)).items():
        expected = heads(captured.inputs, captured.input_gradients, 16)
        for score, values in expected.items():
            assert len(values) == 2
            np.testing.assert_allclose(result[layer][score], values, rtol=1e-9)
    each = composite().analyse(model, batch)[layer]
    for score in NAMES[:2]:
        together = each[score].unflatten(0, (2, 2)).sum(1)
        torch.testing.assert_close(result[layer][score], together)


def test_a_head_that_is_cut_off_scores_nothing():
    """Rows of the values of head 1 are zero, so it gives nothing, and the loss may feel it yet."""
    model, (inputs, targets) = TOKENS.model(), TOKENS.batch()
    with torch.no_grad():
        model.attention.value.weight[4:] = 0
        model.attention.value.bias[4:] = 0
    scores = composite().analyse(model, (inputs, targets))["attention.output"]
    for name in NAMES:
        assert scores[name].shape == (2,) and scores[name][0] > 0
    assert [scores[name][1] == 0 for name in NAMES] == [True, False, True, True]


def test_power_needs_no_loss():
    inputs, _ = TOKENS.batch()
    power = Lens.from_name("attn_activation_power").analyse(TOKENS.model(), inputs)
    assert list(power) == ["attention.output"]


class Own(nn.Module):
    """An attention that says nothing of its heads, and its mixing layer has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Linear(6, 12)
        self.mixing = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixing(torch.tanh(self.values(x)))


@pytest.mark.parametrize(
    "options", [{"heads": 3, "layers": "mix*"}, {"heads": {"mixing": 3}}], ids=str
)
def test_heads_of_ones_own_attention_are_said(options: dict[str, Any]):
    model, x = Own(), torch.randn(20, 6)
    scores = composite(**options).analyse(model, (x, {"loss": lambda out, _: out.sum()}))
    assert list(scores) == ["mixing"]
    u = torch.tanh(model.values(x)).detach().double().unflatten(1, (3, 4))
    slope = model.mixing.weight.detach().double().sum(0).unflatten(0, (3, 4))
    inner = (u * slope).sum(2)
    expected = {
        "attn_activation_power": u.square().sum(2).mean(0),
        "attn_gradient_power": slope.square().sum(1),
        "attn_taylor": inner.abs().mean(0),
        "attn_loss_proxy": inner.square().mean(0) / 2,
    }
    for name, values in expected.items():
        torch.testing.assert_close(scores["mixing"][name], values, rtol=1e-5, atol=1e-7)


def test_plain_tensors_are_cut_as_they_are_told():
    x, g = torch.randn(30, 12), torch.randn(30, 12)
    expected = heads(x.double().numpy(), g.double().numpy(), 4)
    for name in NAMES:
        found = get_metric(name, heads=3).compute(inputs=x, gradients=g)
        np.testing.assert_allclose(found, expected[name], rtol=1e-5)
        with pytest.raises(InvalidValueError, match="the number of heads is not known"):
            get_metric(name).compute(inputs=x, gradients=g)


def test_orthogonal_rotations_within_a_head_change_nothing():
    x, g = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, 8, dtype=torch.float64)
    turns = [torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q for _ in range(2)]
    turn = torch.block_diag(*turns)
    for name in NAMES:
        lens = get_metric(name, heads=2)
        turned = lens.compute(inputs=x @ turn, gradients=g @ turn)
        torch.testing.assert_close(turned, lens.compute(inputs=x, gradients=g))


def lens(**options: Any) -> MetricLens:
    return get_metric("attn_activation_power", **options)


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def test_attention_that_torch_computes_by_itself_is_said_to_be_out_of_reach():
    message = "'self_attn.out_proj' is the output projection of an nn.MultiheadAttention"
    for options in ({}, {"layers": "self_attn.out_proj", "heads": 2}):
        with pytest.raises(IncompatibleModelError, match=message):
            lens(**options).analyse(encoder(), torch.randn(2, 5, 8))
    both = nn.Sequential(encoder(), TOKENS.model().attention)
    assert lens().left_out(wrap(both)) == ["0.self_attn.out_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads is 0, expected 1 or more"),
        ({"heads": "two"}, "heads is 'two', expected a number or"),
        ({"per": "group"}, "per is 'group', expected one of head, key_value_head"),
        ({"per": "key_value_head", "heads": 2}, "leave heads= out"),
    ],
)
def test_a_wrong_option_is_an_error(options: dict[str, Any], message: str):
    with pytest.raises(InvalidValueError, match=message):
        lens(**options)


def test_what_cannot_be_cut_or_found_is_an_error():
    x = torch.randn(4, 6)
    with pytest.raises(InvalidValueError, match=r"'mixing' takes in 12 values, .* into 5 heads"):
        lens(heads=5, layers="mixing").analyse(Own(), x)
    with pytest.raises(IncompatibleModelError, match="name them with heads="):
        lens().analyse(Own(), x)
    with pytest.raises(IncompatibleModelError, match=r"no layer 'mixer' \(did you mean 'mixing'"):
        lens(heads={"mixer": 2}).analyse(Own(), x)
