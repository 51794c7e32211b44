"""Feed-forward blocks found by structure, whatever a family calls its layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens
from nodelens.errors import IncompatibleModelError
from tests.model.families import FAMILIES, bert, down_projections, language_model, text

LENS = "scar_activation_power"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_down_projections_are_found_and_nothing_else(family: str):
    result = Lens.from_name(LENS).analyse(language_model(family), text([7, 4]))
    assert list(result) == down_projections(family)
    _, options, _ = FAMILIES[family]
    width = options.get("intermediate_size", options.get("ffn_dim", 4 * 16))
    assert [len(scores[LENS]) for scores in result.values()] == [width, width]
    assert set(result.rows.values()) == {11}


def test_bert_ends_its_blocks_in_a_child_named_output():
    result = Lens.from_name(LENS).analyse(bert(), text([7, 4]))
    assert list(result) == ["encoder.layer.0.output.dense", "encoder.layer.1.output.dense"]
    every = Lens.from_name("activation_mean").analyse(bert(), text([7, 4]))
    blocks = [name for name in every if "encoder.layer.0" in name]
    assert blocks == [
        f"encoder.layer.0.{name}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    ]
    assert every.rows["encoder.layer.0.output.dense"] == 11
    assert every.rows["pooler.dense"] == 2, "the pooler sees one token a text, padded or not"


def test_a_pass_with_and_without_padding_finds_the_same_rows_where_tokens_are_flattened():
    model, batch = language_model("OPT"), text([6, 6])
    padded = {name: nn.functional.pad(ids, (0, 3)) for name, ids in batch.items()}
    lens = Lens.from_name("activation_variance")
    whole, cut = lens.analyse(model, batch), lens.analyse(model, padded)
    assert whole.rows == cut.rows
    for name, scores in whole.scores().items():
        torch.testing.assert_close(cut.scores()[name], scores, rtol=1e-4, atol=1e-7)


class TwoTowers(nn.Module):
    """Looks like an FFN at a glance: three layers of the right widths hang on one parent."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(torch.relu(self.up(x))))


@pytest.mark.parametrize(
    "model",
    [
        TwoTowers(),
        nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)),
        nn.Linear(4, 4),
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)),
    ],
    ids=["three on one parent", "no way back", "one layer", "another width"],
)
def test_what_is_no_block_is_not_taken_for_one(model: nn.Module):
    with pytest.raises(IncompatibleModelError, match="no feed-forward block"):
        Lens.from_name(LENS).analyse(model, torch.randn(9, 4))


def test_a_part_without_blocks_is_an_error_in_company_too():
    lens = CompositeLens([Lens.from_name("activation_mean"), Lens.from_name(LENS)])
    for _ in range(2):
        with pytest.raises(IncompatibleModelError, match=rf"'{LENS}'.*no feed-forward block"):
            lens.analyse(TwoTowers(), torch.randn(9, 4))


def test_the_layers_of_a_composite_come_in_forward_order_whichever_lens_is_first():
    lens = CompositeLens([Lens.from_name(LENS), Lens.from_name("activation_mean")])
    result = lens.analyse(language_model("Llama"), text([7, 4]))
    layers = list(result)
    assert layers[0] == "model.layers.0.self_attn.q_proj" and layers[-1] == "lm_head"
    assert set(result["lm_head"]) == {"activation_mean"}
    assert set(result["model.layers.0.mlp.down_proj"]) == {LENS, "activation_mean"}
