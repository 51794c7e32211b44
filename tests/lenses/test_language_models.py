"""Lenses on the tokens of language models, ragged and padded, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens import CompositeLens, Lens
from nodelens.metrics.facts import LensFacts
from tests.lenses.agreement import ENTRIES
from tests.model.families import bert, down_projections, language_model, plain, text
from tests.oracles.capture import Plain, capture
from tests.oracles.gradient import scar
from tests.oracles.information import (
    about_targets,
    class_synergy,
    mean_over_others,
    pairwise,
    synergy,
)

# What needs a target, or spreads over maps only.
TOKENS = [
    entry
    for entry in ENTRIES
    if "spatial" not in entry.options
    and ("targets" not in LensFacts.of(entry.lens).needs or entry.options == {"reference": "pc1"})
]
SCAR = [
    "scar_activation_power",
    "scar_taylor",
    "scar_curvature",
    "scar_loss_proxy",
    "scar_loss_proxy_factored",
]
BATCHES = [[9, 6, 9, 4], [5, 7]]
# Fewer rows than channels: what is left of a singular matrix of correlations is good to 1e-8.
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-8}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize("family", ["GPT-2", "OPT"])
def test_every_layer_of_a_language_model_agrees_with_the_oracle(family: str, dtype: torch.dtype):
    model = language_model(family, dtype)
    batches = [text(lengths, seed=n) for n, lengths in enumerate(BATCHES)]
    composite = CompositeLens([entry.make() for entry in TOKENS])
    result = composite.run(model, batches, progress=False)
    # The head's row for the padding token is all zeros, which is no case for an oracle.
    names = [name for name in result if name != "lm_head"]
    seen = capture(model, [plain(batch) for batch in batches], names)
    assert len(seen) == {"GPT-2": 8, "OPT": 12}[family]
    for entry, label in zip(TOKENS, composite.labels, strict=True):
        for name, captured in seen.items():
            np.testing.assert_allclose(
                result[name][label],
                entry.oracle(captured),
                rtol=RELATIVE[dtype],
                atol=max(entry.near_zero, 1e-7) if dtype is torch.float32 else 1e-11,
                err_msg=f"{entry}, layer {name}",
            )
    assert set(result.rows.values()) == {sum(map(sum, BATCHES))}


@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize(
    ("family", "side"),
    [
        ("Llama", "right"),
        ("Llama", "left"),
        ("OPT", "right"),
        ("OPT", "left"),
        ("Phi-3", "left"),
        ("GPT-2", "right"),
    ],
)
def test_scar_scores_of_a_language_model_agree_with_the_oracle(
    family: str, side: str, dtype: torch.dtype
):
    model = language_model(family, dtype)
    batches = [text(lengths, side=side, seed=n) for n, lengths in enumerate(BATCHES)]
    lens = CompositeLens([Lens.from_name(name) for name in SCAR])
    result = lens.run(model, batches, progress=False)
    assert list(result) == down_projections(family)
    seen = capture(model, [plain(batch) for batch in batches], list(result))
    for name, captured in seen.items():
        assert len(captured.inputs) == result.rows[name] == sum(map(sum, BATCHES))
        expected = scar(captured.inputs, captured.input_gradients)
        for score, values in expected.items():
            rtol = RELATIVE[dtype]
            np.testing.assert_allclose(result[name][score], values, rtol=rtol, err_msg=score)


def test_scar_scores_on_paper():
    """With the sum of outputs as the loss, the gradient at a unit is its column sum."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.randn(50, 3)
    units = model[1](model[0](x)).detach().double()
    slope = model[2].weight.detach().double().sum(0)
    lens = CompositeLens([Lens.from_name(name) for name in SCAR])
    scores = lens.analyse(model, (x, {"loss": lambda output, _: output.sum()}))["2"]
    power = units.square().mean(0)
    expected = [
        power,
        (units * slope).abs().mean(0),
        slope.square(),
        0.5 * power * slope.square(),
        0.5 * power * slope.square(),
    ]
    for name, values in zip(SCAR, expected, strict=True):
        torch.testing.assert_close(scores[name], values, rtol=1e-5, atol=0)


class Leaking(torch.nn.Module):
    """A block whose units are used a second time, beside the down projection."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(3, 8)
        self.down = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        units = torch.tanh(self.up(x))
        return self.down(units), units


def test_the_gradient_of_a_unit_is_that_through_its_down_projection_alone():
    model, x = Leaking(), torch.randn(20, 3)
    loss = {"loss": lambda output, _: output[0].sum() + 100 * output[1].sum()}
    expected = model.down.weight.detach().double().sum(0).square()
    curvature = Lens.from_name("scar_curvature")
    # A lens that reads a gradient further up makes the units themselves part of the graph.
    for lens in (curvature, CompositeLens([curvature, Lens.from_name("taylor_saliency")])):
        scores = lens.analyse(model, (x, loss))["down"]["scar_curvature"]
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)


def test_token_labels_are_targets_where_they_are_given():
    model = bert("BertForTokenClassification", num_labels=3)
    batch = text([9, 6, 9, 4, 8, 7])
    labels = torch.randint(0, 3, batch["input_ids"].shape)
    labels[::2, 1] = -100
    result = Lens.from_name("mi_gaussian").analyse(model, {**batch, "labels": labels})
    mask = batch["attention_mask"].bool() & (labels != -100)
    seen = capture(model, [Plain(kwargs=batch, mask=mask)])
    for name, captured in seen.items():
        expected = about_targets(captured.outputs, labels[mask].numpy())
        scores = result[name]["mutual_information_gaussian"]
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7, err_msg=name)
        assert result.rows[name] == int(mask.sum())


def test_synergy_is_measured_on_the_rows_that_have_a_target():
    model = bert("BertForTokenClassification", num_labels=3).double()
    batch = text([9, 6, 9, 4, 8, 7])
    labels = torch.randint(0, 3, batch["input_ids"].shape)
    labels[:, -1] = -100
    labels[::2, 1] = -100
    mask = batch["attention_mask"].bool() & (labels != -100)
    kinds = {"gaussian_pid_synergy_mmi": synergy, "synergy_gaussian_mmi": class_synergy}
    # Redundancy beside them looks at every token, labelled or not.
    lenses = [Lens.from_name(name) for name in (*kinds, "average_redundancy")]
    result = CompositeLens(lenses).analyse(model, {**batch, "labels": labels})
    seen = capture(model, [Plain(kwargs=batch, mask=mask)])
    everywhere = capture(model, [Plain(kwargs=batch, mask=batch["attention_mask"].bool())])
    name = "bert.encoder.layer.0.attention.self.query"
    for lens, oracle in kinds.items():
        wanted = oracle(seen[name].outputs, labels[mask].numpy())
        np.testing.assert_allclose(result[name][lens], wanted, rtol=1e-6, atol=1e-9)
    wanted = mean_over_others(pairwise(everywhere[name].outputs))
    np.testing.assert_allclose(result[name]["average_redundancy"], wanted, rtol=1e-8)


def test_a_causal_language_model_with_labels_has_a_synergy():
    model = language_model("GPT-2", torch.float32)
    batch = text([9, 6, 9, 4])
    lens = Lens.from_name("synergy_gaussian_mmi")
    result = lens.analyse(model, {**batch, "labels": batch["input_ids"]})
    assert len(result) == 9 and min(float(v.min()) for v in result.scores().values()) >= 0
    # The last token of every text has nothing to predict.
    assert set(result.rows.values()) == {9 + 6 + 9 + 4 - 4}
