"""The calls that users of the reference systems know, word for word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).parents[1]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Residual(nn.Module):
    """Names its layers as a ResNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Block())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(self.conv1(x)).mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    return Residual()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(6, 3, 8, 8)


def test_wrapping_a_model(model: nn.Module, inputs: Tensor):
    from nodelens import ModelWrapper

    wrapper = ModelWrapper(model, tracked_layers=["layer1.0.conv1"])
    outputs, activations = wrapper.forward_with_activations(inputs)
    weights = wrapper.get_layer_weights(layers=["layer1.0.conv1"])

    with torch.no_grad():
        assert torch.equal(outputs, model(inputs))
        expected = model.layer1[0].conv1(model.conv1(inputs))
    assert torch.equal(activations["layer1.0.conv1"], expected)
    assert set(activations) == {"layer1.0.conv1"}
    assert torch.equal(weights["layer1.0.conv1"], model.layer1[0].conv1.weight)


def test_computing_a_metric_from_tensors():
    from nodelens.metrics import get_metric, list_metrics

    layer_inputs, layer_weights = torch.randn(50, 6), torch.randn(4, 6)
    rq = get_metric("rayleigh_quotient", relative=True, regularization=1e-6)
    scores = rq.compute(inputs=layer_inputs, weights=layer_weights)

    assert "rayleigh_quotient" in list_metrics() and "ablation" not in list_metrics()
    covariance = torch.cov(layer_inputs.T) + 1e-6 * torch.eye(6)
    along = ((layer_weights @ covariance) * layer_weights).sum(1)
    expected = along / layer_weights.square().sum(1) / covariance.trace()
    assert scores.shape == (4,)
    torch.testing.assert_close(scores, expected.double(), rtol=1e-5, atol=0)


def test_analysing_one_batch(model: nn.Module, inputs: Tensor):
    from nodelens import Lens

    batch = inputs
    result = Lens.from_name("rayleigh_quotient").analyse(model, batch)

    assert list(result) == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "fc"]
    assert result["fc"]["rayleigh_quotient"].shape == (5,)


def test_aggregating_by_hand(model: nn.Module, inputs: Tensor):
    from nodelens import Lens

    lens = Lens.from_name("rayleigh_quotient")
    aggregator = lens.aggregator()
    loader = DataLoader(TensorDataset(inputs, torch.arange(6) % 5), batch_size=4)
    for statistics in lens.analyse_batched(model, loader):
        aggregator.update(statistics)

    whole = lens.run(model, loader, progress=False)
    for layer, scores in aggregator.result().scores().items():
        assert torch.equal(scores, whole[layer]["rayleigh_quotient"])


def test_running_over_a_stream_of_unknown_length(model: nn.Module, inputs: Tensor, capfd):
    from nodelens import CompositeLens, Lens

    batches = ((part, torch.zeros(len(part), dtype=torch.long)) for part in inputs.split(2))
    lens = CompositeLens([Lens.from_name("rq"), Lens.from_name("taylor_saliency")])
    result = lens.run(model, batches)

    assert set(result["fc"]) == {"rayleigh_quotient", "taylor_saliency"}
    assert result.rows["fc"] == 6
    assert capfd.readouterr().out == "", "progress goes to standard error"


def test_results_are_dicts_with_more(model: nn.Module, inputs: Tensor, tmp_path):
    from nodelens import Lens, LensResult

    result = Lens.from_name("activation_variance", layers=["layer1.*"]).analyse(model, inputs)
    assert isinstance(result, dict) and result.unit == "activation^2"
    assert result.lens == "activation_variance" and result.params["site"] == "output"
    assert result.rows == {"layer1.0.conv1": 6 * 64, "layer1.0.conv2": 6 * 64}
    (layer, channel, value), *_ = result.top(3)
    assert float(result[layer]["activation_variance"][channel]) == value
    table = result.to_pandas()
    assert list(table) == ["layer", "channel", "score", "value", "unit"] and len(table) == 8
    result.save(tmp_path)
    assert torch.equal(
        LensResult.load(tmp_path)[layer]["activation_variance"],
        result[layer]["activation_variance"],
    )


def test_silencing_and_evaluating(model: nn.Module, inputs: Tensor):
    from nodelens import Lens
    from nodelens.interventions import evaluate

    batches = [(inputs, torch.arange(6) % 5)]
    dense = evaluate(model, batches)
    silent = evaluate(model, batches, {"layer1.0.conv1": [0, 1]})
    lens = Lens.from_name("ablation", channels={"layer1.0.conv1": [0, 1]})
    scores = lens.run(model, batches, progress=False)["model"]

    assert scores["loss_change"].shape == (1,)
    assert float(scores["loss"]) == pytest.approx(dense.loss)
    assert float(scores["loss_ablated"]) == pytest.approx(silent.loss)


def test_loading_a_config_and_choosing_its_experiment():
    from nodelens.configs.config_loader import load_config
    from nodelens.experiments import GeneralAlignmentExperiment

    config = load_config(ROOT / "configs/examples/digits_basic.yaml")
    experiment = GeneralAlignmentExperiment(config)

    assert config.experiment_type == "general_alignment"
    assert callable(experiment.run)


@pytest.mark.slow
def test_the_package_runs_as_a_module():
    found = subprocess.run(
        [sys.executable, "-m", "nodelens", "lenses"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0 and "rayleigh_quotient" in found.stdout, found.stderr
