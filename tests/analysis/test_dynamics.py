"""Planted trends come out as planted; a model's weights are its own again after scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import kendalltau, linregress, spearmanr
from torch import nn

from nodelens.analysis.dynamics import dynamics, score_checkpoints
from nodelens.errors import InvalidValueError, OutputError, ShapeError, TooFewRowsError

STEPS = [1.0, 2.0, 4.0, 8.0]


def test_planted_lines_have_their_slopes():
    rates = torch.tensor([0.5, -2.0, 0.0])
    straight = torch.tensor(STEPS)[:, None] * rates + 3
    found = dynamics(straight, STEPS)
    torch.testing.assert_close(found.slope, rates.double())
    assert found.tau.tolist() == [1, -1, 0]
    torch.testing.assert_close(found.final, straight[-1].double())
    logs = torch.tensor(STEPS, dtype=torch.float64).log()[:, None] * rates.double()
    torch.testing.assert_close(dynamics(logs, STEPS, log_steps=True).slope, rates.double())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_trends_are_those_of_scipy(ties: bool, scale: float):
    random = np.random.default_rng(0)
    values = scale * random.normal(size=(9, 5))
    values = scale * np.round(values / scale) if ties else values
    steps, losses = np.arange(9.0) ** 2, random.normal(size=9)
    found = dynamics(values, steps.tolist(), losses)
    for channel, column in enumerate(values.T):
        line = linregress(steps, column)
        assert float(found.slope[channel]) == pytest.approx(line.slope)
        assert float(found.tau[channel]) == pytest.approx(kendalltau(steps, column).statistic)
        assert found.loss is not None
        assert float(found.loss[channel]) == pytest.approx(spearmanr(losses, column).statistic)
    assert float(found.neighbours[3]) == pytest.approx(spearmanr(values[3], values[4]).statistic)
    assert float(found.with_last[2]) == pytest.approx(spearmanr(values[2], values[8]).statistic)


def test_an_order_that_turns_round_is_known_by_hand():
    rising = torch.arange(10.0)
    found = dynamics(torch.stack([rising.flip(0), rising.flip(0), rising]), top=0.2)
    assert found.neighbours.tolist() == pytest.approx([1, -1])
    assert found.with_last.tolist() == pytest.approx([-1, -1, 1])
    assert found.top_overlap.tolist() == [0, 0, 1]
    half = torch.tensor([[9.0, 0, 8, 0, 0, 0, 0, 0, 0, 0], [9.0, 8, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert dynamics(half, top=0.2).top_overlap.tolist() == [0.5, 1]
    table = found.to_pandas()
    assert table["step"].tolist() == [0, 1, 2] and np.isnan(table["with_before"][0])


def test_noise_has_no_trend_and_no_stability():
    noise = torch.randn(20, 400, generator=torch.Generator().manual_seed(0))
    found = dynamics(noise)
    assert abs(float(found.tau.mean())) < 0.03 and abs(float(found.neighbours.mean())) < 0.03
    assert float(found.top_overlap[:-1].mean()) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("scores", "options", "error", "text"),
    [
        ([1.0, 2.0], {}, ShapeError, r"shape \(2,\), expected \(checkpoints, channels\)"),
        ([[1.0]], {}, TooFewRowsError, "of 1 checkpoint, expected at least 2"),
        ([[1.0], [2.0]], {"steps": [3, 3]}, InvalidValueError, "expected rising numbers"),
        ([[1.0], [2.0]], {"steps": [1]}, ShapeError, r"expected \(2,\), one a checkpoint"),
        ([[1.0], [2.0]], {"log_steps": True}, InvalidValueError, "0, which has no logarithm"),
        ([[1.0], [2.0]], {"losses": [1]}, ShapeError, r"losses have shape \(1,\), expected \(2,\)"),
        ([[1.0], [2.0]], {"top": 0}, InvalidValueError, "top is 0, expected a fraction"),
    ],
)
def test_what_is_no_run_is_refused(scores: Any, options: Any, error: Any, text: str):
    with pytest.raises(error, match=text):
        dynamics(scores, **options)


def norms(model: nn.Module) -> dict[str, torch.Tensor]:
    assert isinstance(model, nn.Linear)
    return {"fc": model.weight.norm(dim=1)}


def test_checkpoints_are_scored_in_order_from_files_and_from_dicts(tmp_path: Path):
    model = nn.Linear(3, 4)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    states = [{name: (n + 1) * value for name, value in own.items()} for n in range(3)]
    save_file(states[1], tmp_path / "1.safetensors")
    found = score_checkpoints(model, [states[0], tmp_path / "1.safetensors", states[2]], norms)
    expected = own["weight"].norm(dim=1).double() * torch.arange(1, 4)[:, None]
    torch.testing.assert_close(found["fc"], expected)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_of_another_model_is_refused_and_the_weights_are_back(tmp_path: Path):
    model = nn.Linear(3, 4)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    good = {name: value + 1 for name, value in own.items()}

    def scored(*bad: Any) -> None:
        score_checkpoints(model, [good, *bad], norms)

    with pytest.raises(InvalidValueError, match=r"checkpoint 1 has no 'weight'.*'weights'"):
        scored({"weights": own["weight"], "bias": own["bias"]})
    with pytest.raises(InvalidValueError, match="checkpoint 1 has 'extra', the model has not"):
        scored({**own, "extra": own["bias"]})
    with pytest.raises(ShapeError, match=r"'bias' has shape \(2,\), expected \(4,\)"):
        scored({**own, "bias": torch.zeros(2)})
    with pytest.raises(OutputError, match="checkpoint 1: cannot read"):
        scored(tmp_path / "none.safetensors")
    with pytest.raises(TooFewRowsError, match="no checkpoint was scored"):
        score_checkpoints(model, [], norms)
    with pytest.raises(ZeroDivisionError):
        score_checkpoints(model, [good], lambda model: 1 / 0)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
