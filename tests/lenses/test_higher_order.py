"""What all channels of a layer share at once: matrices whose measures are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens, LensResult
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import independent_information
from tests.oracles import higher_order as oracle

DOUBLE = torch.float64
EPS = 1e-12
NAMES = ("total_correlation", "dual_total_correlation", "o_information")


def analysed(name: str, outputs: Tensor, eps: float = EPS) -> LensResult:
    model = nn.Linear(outputs.shape[1], outputs.shape[1], bias=False).double()
    nn.init.eye_(model.weight)
    return Lens.from_name(name, eps=eps).analyse(model, outputs)


def scores(name: str, outputs: Tensor, eps: float = EPS) -> tuple[Tensor, float]:
    """The scores of the channels, and the layer's number."""
    found = analysed(name, outputs, eps)["model"]
    return found[name], found[f"{name}.layer"].item()


def rows_with(correlations: Tensor, rows: int = 400) -> Tensor:
    """Rows whose sample correlations are these, exactly."""
    drawn = torch.randn(rows, len(correlations), dtype=DOUBLE)
    white = torch.linalg.qr(drawn - drawn.mean(0)).Q * (rows - 1) ** 0.5
    return white @ torch.linalg.cholesky(correlations).mT


def equal_correlations(channels: int, rho: float) -> Tensor:
    return torch.full((channels, channels), rho, dtype=DOUBLE).fill_diagonal_(1)


@pytest.mark.parametrize("name", NAMES)
def test_independent_channels_share_nothing(name: str):
    channels, layer = scores(name, rows_with(torch.eye(5, dtype=DOUBLE)))
    assert channels.abs().max() < 1e-9 and abs(layer) < 1e-9


@pytest.mark.parametrize("rho", [-0.2, 0.3, 0.9])
def test_equally_correlated_channels_have_the_known_measures(rho: float):
    c = 4
    outputs = rows_with(equal_correlations(c, rho))
    determinant = (1 - rho) ** (c - 1) * (1 + (c - 1) * rho)
    smaller = (1 - rho) ** (c - 2) * (1 + (c - 2) * rho)
    total = -0.5 * math.log(determinant)
    about = -0.5 * math.log(determinant / smaller)
    partial = rho / (1 + (c - 2) * rho)
    given = -0.5 * (c - 1) * math.log(1 - partial**2)
    dual = c * about - total
    for name, channel, layer in (
        ("total_correlation", about, total),
        ("dual_total_correlation", given, dual),
        ("o_information", about - given, total - dual),
    ):
        found, number = scores(name, outputs)
        torch.testing.assert_close(found, torch.full((c,), channel, dtype=DOUBLE))
        assert number == pytest.approx(layer, rel=1e-9)


def test_redundancy_and_synergy_have_opposite_signs():
    drawn = rows_with(torch.eye(4, dtype=DOUBLE))
    cause, a, b, noise = drawn.T
    common = torch.stack([cause + 0.5 * a, cause + 0.5 * b, cause + 0.5 * noise], 1)
    collided = torch.stack([a, b, a + b + 0.1 * noise], 1)
    (redundant, whole), (synergistic, less) = (
        scores("o_information", outputs) for outputs in (common, collided)
    )
    assert whole > 0.1 and redundant.min() > 0.1
    assert less < -0.1 and synergistic.max() < -0.1


def test_two_channels_have_no_o_information():
    outputs = rows_with(equal_correlations(2, 0.8))
    channels, layer = scores("o_information", outputs)
    assert channels.abs().max() < 1e-9 and abs(layer) < 1e-9
    assert scores("total_correlation", outputs)[1] == pytest.approx(-0.5 * math.log(1 - 0.64))


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("total_correlation", oracle.total),
        ("dual_total_correlation", oracle.dual),
        ("o_information", oracle.o_information),
    ],
)
def test_the_layer_s_number_is_that_of_the_oracle(name: str, measure):
    outputs = torch.randn(50, 6, dtype=DOUBLE) @ torch.randn(6, 6, dtype=DOUBLE)
    channels, layer = scores(name, outputs, oracle.EPS)
    assert layer == pytest.approx(measure(oracle.shrunk(outputs.numpy())), rel=1e-9)
    np.testing.assert_allclose(channels.numpy(), oracle.gains(outputs.numpy(), measure), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_finite_told_and_constant_channels_do_not_count(name: str):
    outputs = rows_with(torch.eye(3, dtype=DOUBLE))
    copied = torch.cat([outputs, outputs[:, :1], torch.full((400, 1), 0.1, dtype=DOUBLE)], 1)
    result = analysed(name, copied, 1e-4)
    channels = result["model"][name]
    assert channels[4] == 0 and channels[1:3].abs().max() < 1e-6
    copy = 0.0 if name == "o_information" else -0.5 * math.log(1 - (1 - 1e-4) ** 2)
    torch.testing.assert_close(channels[[0, 3]], torch.full((2,), copy, dtype=DOUBLE))
    assert result.notes == [
        f"{name}, layer 'model': channels depend on each other in 1 of 4 directions (400 rows): "
        "what those count for is set by eps=0.0001"
    ]


def test_few_rows_are_told():
    fewer = analysed("total_correlation", torch.randn(5, 8, dtype=DOUBLE), 1e-4)
    assert "depend on each other in 4 of 8 directions (5 rows)" in fewer.notes[0]
    few = analysed("total_correlation", torch.randn(20, 8, dtype=DOUBLE), 1e-4)
    assert "20 rows are few for 8 channels" in few.notes[0]
    assert analysed("total_correlation", torch.randn(2000, 8, dtype=DOUBLE), 1e-4).notes == []


def test_the_bias_that_is_told_is_what_independent_channels_give():
    found = [scores("total_correlation", torch.randn(20, 8, dtype=DOUBLE))[0] for _ in range(60)]
    expected = independent_information(20, 8)
    assert torch.stack(found).mean().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("eps", [0.0, 1.0, -1.0])
def test_a_shrinkage_that_does_not_shrink_is_refused(eps: float):
    with pytest.raises(InvalidValueError, match="expected a number between 0 and 1"):
        Lens.from_name("total_correlation", eps=eps)
