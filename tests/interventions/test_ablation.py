"""The ablation lens says what evaluating twice says; what cannot be silenced is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nodelens import Lens
from nodelens.errors import InvalidValueError, LayerNotFoundError, ShapeError
from nodelens.interventions import evaluate
from tests.interventions.plainly import batches, hooked, network, zero_outputs


def ablation(**options: Any) -> dict[str, float]:
    lens = Lens.from_name("ablation", **options)
    result = lens.run(network(), batches(), progress=False)
    assert all(values.shape == (1,) for values in result["model"].values())
    return {name: float(values) for name, values in result["model"].items()}


def test_the_ablation_lens_says_what_evaluating_says():
    channels = {"hidden": [0, 3], "normed": [2, 4]}
    model = network()
    dense, silent = evaluate(model, batches()), evaluate(model, batches(), channels)
    scores = ablation(channels=channels)
    assert scores["loss"] == pytest.approx(dense.loss)
    assert scores["loss_ablated"] == pytest.approx(silent.loss)
    assert scores["loss_change"] == pytest.approx(silent.loss - dense.loss)
    assert scores["accuracy"] == pytest.approx(dense.accuracy)
    assert scores["accuracy_ablated"] == pytest.approx(silent.accuracy)
    with torch.no_grad():
        before = torch.cat([model(x) for x, _ in batches()])
        hooks = {"hidden": zero_outputs([0, 3], -1), "norm": zero_outputs([2, 4], 1)}
        with hooked(model, hooks):
            after = torch.cat([model(x) for x, _ in batches()])
    change = float((after - before).norm() / before.norm())
    assert scores["output_change"] == pytest.approx(change, rel=1e-5)


def test_ablation_without_targets_gives_the_change_of_the_output():
    result = Lens.from_name("ablation", channels={"model": [0]}).analyse(
        nn.Linear(3, 1), torch.randn(9, 3)
    )
    assert result["model"].keys() == {"output_change"}
    assert float(result["model"]["output_change"]) == 1.0


def test_the_units_of_an_ablation():
    result = Lens.from_name("ablation", channels={"hidden": [0]}).run(
        network(), batches(), progress=False
    )
    assert result.units["accuracy"] == "fraction of rows" and result.units["output_change"] == "1"
    assert result.units["loss_change"] == result.units["loss"] == "loss"


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        ({"hiden": [0]}, LayerNotFoundError, r"'hiden'.*\(did you mean 'hidden'\?\)"),
        ({"norm": [0]}, LayerNotFoundError, "no layer 'norm' to silence"),
        ({"hidden": [7]}, InvalidValueError, "'hidden' has 7 channels, there is no channel 7"),
        ({"hidden": [-8]}, InvalidValueError, "there is no channel -8"),
        ({"hidden": [0.5]}, InvalidValueError, "channel numbers are whole, got torch.float32"),
        (
            {"hidden": torch.ones(6, dtype=torch.bool)},
            ShapeError,
            r"a mask of shape \(6,\) for 7 channels",
        ),
    ],
)
def test_channels_that_do_not_exist_are_errors(channels: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=f"batch 0: .*{message}"):
        evaluate(network(), batches(), channels)
    with pytest.raises(error, match=f"lens 'ablation': .*{message}"):
        ablation(channels=channels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "middle"}, "site is 'middle', expected 'input' or 'output'"),
        (
            {"value": "meen"},
            r"value is 'meen' \(did you mean 'mean'\?\), expected one of 'zero', 'mean'",
        ),
        ({"value": {"plain": torch.zeros(6)}}, "no values to put into layer 'hidden'"),
        ({"value": {"hidden": torch.zeros(3)}}, r"values of shape \(3,\) for 7 channels"),
    ],
)
def test_options_that_mean_nothing_are_errors(options: dict[str, Any], message: str):
    with pytest.raises(InvalidValueError, match=message):
        evaluate(network(), batches(), {"hidden": [0]}, **options)
    with pytest.raises(InvalidValueError, match=f"lens 'ablation': .*{message}"):
        ablation(channels={"hidden": [0]}, **options)


def test_no_channels_to_ablate_is_an_error():
    with pytest.raises(InvalidValueError, match="no channels to silence"):
        Lens.from_name("ablation", channels={})


def test_nothing_to_predict_is_an_error():
    with pytest.raises(InvalidValueError, match="nothing was predicted"):
        evaluate(network(), [])
    with pytest.raises(InvalidValueError, match="batch 0: a loss needs targets"):
        evaluate(network(), [batches()[0][0]])


def test_a_loss_that_is_no_number_is_an_error_that_names_the_batch():
    (x, y), second = batches()
    with pytest.raises(InvalidValueError, match="batch 1: the loss of 17 predictions is nan"):
        evaluate(network(), [second, (x * torch.inf, y)])
