"""What channels say through noise, on data whose variance is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nodelens import Lens
from nodelens.errors import InvalidValueError
from nodelens.metrics import get_metric

NAMES = ("gaussian_mi_analytic", "mi_fast")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_as_wide_as_the_noise_says_half_of_log_two(name: str):
    outputs = torch.tensor([[-0.3], [0.3]], dtype=torch.float64).repeat(500, 3) + 5
    noise = float(outputs.std(0)[0])
    scores = get_metric(name, noise_std=noise).compute(outputs=outputs)
    torch.testing.assert_close(scores, torch.full_like(scores, 0.5 * math.log(2)))


@pytest.mark.parametrize("name", NAMES)
def test_channel_and_noise_in_other_units_say_the_same(name: str):
    outputs = torch.randn(100, 4, dtype=torch.float64)
    once = get_metric(name, noise_std=0.2).compute(outputs=outputs)
    again = get_metric(name, noise_std=20.0).compute(outputs=100 * outputs - 3)
    torch.testing.assert_close(once, again)
    assert get_metric(name).compute(outputs=torch.full((9, 2), 0.1)).tolist() == [0.0, 0.0]


def test_what_averages_out_over_a_map_says_nothing_pooled():
    model = nn.Conv2d(1, 1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    wave = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(20, 1, 3, 2)
    wave = wave * torch.randn(20, 1, 1, 1, dtype=torch.float64)
    scores = {name: Lens.from_name(name).analyse(model, wave)["model"][name] for name in NAMES}
    assert scores["mi_fast"].abs().max() < 1e-12 < 1 < scores["gaussian_mi_analytic"].min()


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_noise_must_have_a_size(noise: float):
    with pytest.raises(InvalidValueError, match=r"noise_std is .*, expected a number above 0"):
        get_metric("mi_gap", noise_std=noise)
