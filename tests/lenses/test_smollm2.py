"""A real language model on real text, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from nodelens import CompositeLens, Lens, ModelWrapper, load_model
from nodelens.model.packaged import packaged_model
from tests.oracles.alignment import rayleigh_quotient
from tests.oracles.capture import Captured, Plain, capture
from tests.oracles.gradient import scar
from tests.oracles.information import mean_over_others, pairwise
from tests.oracles.rows import pixels

pytestmark = pytest.mark.models

TEXTS = [
    "A lens asks a question about the channels of a network, and answers it on real data.",
    "Redundant channels repeat what others say.",
    "def variance(x):\n    mean = sum(x) / len(x)\n    return sum((v - mean) ** 2 for v in x)",
    "The cat sat on the mat because the mat was warm and the floor was cold.",
]
SCAR = [f"scar_{name}" for name in ("activation_power", "taylor", "curvature", "loss_proxy")]
SCAR += ["scar_loss_proxy_factored"]
BLOCKS = [0, 14, 29]
DOWN = [f"model.layers.{block}.mlp.down_proj" for block in BLOCKS]
WIDE = ["model.layers.3.self_attn.q_proj", "model.layers.14.mlp.gate_proj", DOWN[1]]


@pytest.fixture(scope="module")
def smollm2() -> ModelWrapper:
    wrapper = load_model(str(packaged_model("smollm2-135m")))
    wrapper.module.eval()
    return wrapper


@pytest.fixture(scope="module")
def batches(smollm2: ModelWrapper) -> list[dict[str, torch.Tensor]]:
    """Two batches as the model's own tokenizer pads them."""
    encode = smollm2.tokenizer
    parts = [TEXTS[:3], TEXTS[3:]]
    return [dict(encode(part, return_tensors="pt", padding=True)) for part in parts]


def plain(batch: dict[str, torch.Tensor]) -> Plain:
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()

    def loss(outputs: Any) -> torch.Tensor:
        predicted = mask[:, 1:] & mask[:, :-1]
        return cross_entropy(
            outputs.logits[:, :-1][predicted], ids[:, 1:][predicted], reduction="sum"
        )

    return Plain(kwargs=batch, loss=loss, mask=mask)


@pytest.fixture(scope="module")
def seen(smollm2: ModelWrapper, batches: list[dict[str, torch.Tensor]]) -> dict[str, Captured]:
    names = list(dict.fromkeys([*DOWN, *WIDE]))
    return capture(smollm2.module, [plain(batch) for batch in batches], names)


def test_the_five_scar_scores(smollm2: ModelWrapper, batches: list[Any], seen: dict[str, Captured]):
    lens = CompositeLens([Lens.from_name(name, layers=DOWN) for name in SCAR])
    result = lens.run(smollm2, batches, progress=False)
    assert list(result) == DOWN
    for name in DOWN:
        assert result.rows[name] == sum(int(batch["attention_mask"].sum()) for batch in batches)
        expected = scar(seen[name].inputs, seen[name].input_gradients)
        for score, values in expected.items():
            found = result[name][score]
            np.testing.assert_allclose(found, values, rtol=1e-5, err_msg=f"{score}, {name}")


def test_rayleigh_quotient(smollm2: ModelWrapper, batches: list[Any], seen: dict[str, Captured]):
    lens = Lens.from_name("rayleigh_quotient", layers=WIDE)
    result = lens.run(smollm2, batches, progress=False)
    for name in WIDE:
        found = result[name]["rayleigh_quotient"]
        expected = rayleigh_quotient(seen[name])
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)


def test_average_redundancy(smollm2: ModelWrapper, batches: list[Any], seen: dict[str, Captured]):
    lens = Lens.from_name("average_redundancy", layers=WIDE[:1])
    result = lens.run(smollm2, batches, progress=False)
    rows = pixels(seen[WIDE[0]].outputs)
    expected = mean_over_others(pairwise(rows))
    np.testing.assert_allclose(result[WIDE[0]]["average_redundancy"], expected, rtol=1e-5)


def test_one_line_on_a_list_of_texts(smollm2: ModelWrapper, batches: list[Any]):
    result = Lens.from_name("rayleigh_quotient", layers=WIDE).analyse(smollm2, TEXTS)
    whole = Lens.from_name("rayleigh_quotient", layers=WIDE).run(smollm2, batches, progress=False)
    assert result.rows == whole.rows
    for name in WIDE:
        torch.testing.assert_close(
            result[name]["rayleigh_quotient"],
            whole[name]["rayleigh_quotient"],
            rtol=1e-4,
            atol=0,
        )
