"""Silencing inside a trace equals zeroing by plain hooks, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import Lens, ModelWrapper
from nodelens.errors import ShapeError
from nodelens.interventions import evaluate
from tests.interventions.plainly import (
    Hook,
    assert_close,
    batches,
    hooked,
    network,
    plainly,
    zero_inputs,
    zero_outputs,
)
from tests.model.families import bert, language_model, text


def test_evaluating_without_channels_is_the_plain_model():
    model = network()
    expected = plainly(model, batches())
    for channels in (None, {}, {"hidden": []}):
        assert_close(evaluate(model, batches(), channels), expected)
    assert_close(evaluate(model.train(), iter(batches())), expected)
    assert model.training and model.norm.training


CASES = {
    "linear": ({"hidden": [0, 3]}, {"hidden": zero_outputs([0, 3], -1)}),
    "convolution": ({"plain": [5, 1]}, {"plain": zero_outputs([1, 5], 1)}),
    "behind its norm": ({"normed": [2, 4, 7]}, {"norm": zero_outputs([2, 4, 7], 1)}),
    "several layers": (
        {"hidden": [6], "plain": [0, 2], "head": [1]},
        {
            "hidden": zero_outputs([6], -1),
            "plain": zero_outputs([0, 2], 1),
            "head": zero_outputs([1], -1),
        },
    ),
    "counted from the end": ({"hidden": [-1, -7]}, {"hidden": zero_outputs([6, 0], -1)}),
}


@pytest.mark.parametrize(("channels", "hooks"), CASES.values(), ids=CASES)
def test_silencing_equals_zeroing_by_hooks(channels: Any, hooks: Mapping[str, Hook]):
    model = network()
    with hooked(model, hooks):
        expected = plainly(model, batches())
    assert_close(evaluate(model, batches(), channels), expected)
    assert expected != plainly(model, batches()), "the case shows nothing"


@pytest.mark.parametrize("site", ["output", "input"])
def test_a_mask_marks_what_to_silence(site: str):
    model, width = network(), 7 if site == "output" else 8
    mask = torch.zeros(width, dtype=torch.bool)
    mask[[1, 4]] = True
    by_mask = evaluate(model, batches(), {"hidden": mask}, site=site)
    for numbers in ([1, 4], torch.tensor([4, 1]), (1, 4), torch.tensor([1, 4, 4])):
        assert evaluate(model, batches(), {"hidden": numbers}, site=site) == by_mask
    assert evaluate(model, batches(), {"hidden": mask.tolist()}, site=site) == by_mask


@pytest.mark.parametrize(
    ("layer", "axis"), [("hidden", -1), ("normed", 1)], ids=["linear", "convolution"]
)
def test_silencing_what_a_layer_takes_in(layer: str, axis: int):
    model = network()
    with hooked(model, {layer: zero_inputs([0, 3], axis)}, "input"):
        expected = plainly(model, batches())
    assert_close(evaluate(model, batches(), {layer: [0, 3]}, site="input"), expected)


def test_other_values_can_be_put_in_place():
    model = network()
    means = torch.linspace(-2, 2, 8)

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, [2, 5]] = means[[2, 5], None, None]
        return output

    with hooked(model, {"norm": hook}):
        expected = plainly(model, batches())
    found = evaluate(model, batches(), {"normed": [2, 5]}, value={"normed": means})
    assert_close(found, expected)


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "OPT"])
def test_silencing_units_of_a_language_models_ffn(family: str):
    model, batch = language_model(family), text([7, 4])
    layer = next(iter(Lens.from_name("scar_activation_power").analyse(model, batch)))
    module = dict(model.named_modules())[layer]
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with hooked(model, {layer: zero_inputs([0, 5, 9], -1)}, "input"), torch.no_grad():
        expected = model(**batch, labels=labels).loss
    found = evaluate(model, [batch], {layer: [0, 5, 9]}, site="input")
    assert found.loss == pytest.approx(float(expected), rel=1e-5)
    assert module._forward_pre_hooks == {}


def test_a_child_named_output_can_be_silenced():
    model, batch = bert("BertForSequenceClassification", num_labels=3), text([7, 4])
    layer = "bert.encoder.layer.0.output.dense"
    labels = torch.tensor([0, 2])
    with hooked(model, {layer: zero_outputs(list(range(16)), -1)}), torch.no_grad():
        expected = cross_entropy(model(**batch).logits, labels)
    found = evaluate(model, [(batch, labels)], {layer: list(range(16))})
    assert found.loss == pytest.approx(float(expected), rel=1e-5)


def test_every_call_of_a_layer_is_silenced():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.layer(x)) + 1)

    model, given = Twice(), [(torch.randn(9, 4), torch.randint(0, 4, (9,)))]
    with hooked(model, {"layer": zero_outputs([0, 2], -1)}):
        expected = plainly(model, given)
    assert_close(evaluate(model, given, {"layer": [0, 2]}), expected)


def test_numeric_targets_have_no_accuracy():
    model, x = nn.Linear(4, 2), torch.randn(9, 4)
    targets = torch.randn(9, 2)
    found = evaluate(model, [(x, targets)], {"model": [1]})
    with torch.no_grad():
        outputs = model(x).index_fill(1, torch.tensor([1]), 0)
    assert found.accuracy is None and found.rows == 18
    assert found.loss == pytest.approx(float((outputs - targets).square().mean()), rel=1e-6)


@pytest.mark.parametrize("site", ["output", "input"])
def test_the_model_is_left_bit_for_bit_as_it_was(site: str):
    model = network().train()
    model.plain.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    wrong = (torch.randn(3, 5, 7, 7), torch.zeros(3).long())
    generator = torch.get_rng_state()
    evaluate(model, batches(), {"hidden": [0], "normed": [1]}, site=site)
    lens = Lens.from_name("ablation", channels={"hidden": [0], "normed": [1]}, site=site)
    lens.run(model, batches(), progress=False)
    with pytest.raises(ShapeError):
        evaluate(model, [wrong], {"hidden": [0]})
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.hidden.weight.grad is None
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_wrapped_model_is_silenced_alike():
    model = network()
    direct = evaluate(model, batches(), {"hidden": [0]})
    assert evaluate(ModelWrapper(model), batches(), {"hidden": [0]}) == direct
