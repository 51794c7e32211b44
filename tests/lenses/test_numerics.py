"""Numbers that are hard to add up: far from zero, in half precision, in the tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens
from tests.lenses.agreement import ENTRIES
from tests.lenses.networks import summed_loss
from tests.oracles import activation, alignment
from tests.oracles.capture import Plain, as_array, capture
from tests.oracles.rows import pixels

SPLITS = {"one batch": 1, "ten batches": 10}


def far(shift: float) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer whose inputs and outputs lie `shift` standard deviations from zero."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        # Nearly parallel units would have 1 - rho^2, not the distance from zero, cost digits.
        nn.init.orthogonal_(model[0].weight)
        model[0].bias += shift
    x = torch.randn(600, 6) * torch.linspace(0.5, 2, 6) + shift
    return model, x, torch.randint(0, 3, (600,))


# Means are kept in float32 within a batch: s standard deviations from zero they are good to
# s * 1e-7 of one. A rule that compares means, and merged third and fourth powers, show it.
LOOSE = {"gradient_alignment rule=input": 5e-6, "activation_kurtosis": 5e-7}


@pytest.mark.parametrize("parts", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("shift", [10.0, 100.0])
def test_channels_far_from_zero_lose_no_digits(shift: float, parts: int):
    model, x, y = far(shift)
    entries = [entry for entry in ENTRIES if entry.fits("classes")]
    composite = CompositeLens([entry.make() for entry in entries])
    batches = list(zip(x.chunk(parts), y.chunk(parts), strict=True))
    result = composite.run(model, batches, progress=False)
    plain = [Plain((a,), loss=lambda o, b=b: summed_loss(o, b), targets=b) for a, b in batches]
    captured = capture(model, plain, ["0"])["0"]
    for entry, label in zip(entries, composite.labels, strict=True):
        near_zero = max(entry.near_zero, shift * LOOSE.get(str(entry), 0))
        np.testing.assert_allclose(
            result["0"][label],
            entry.oracle(captured),
            rtol=1e-5,
            atol=near_zero,
            err_msg=str(entry),
        )


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("cuts", [[900], [1, 200, 699]], ids=["one batch", "ragged"])
def test_the_outlier_index_is_within_a_hundredth(q: float, cuts: list[int]):
    x = torch.randn(900, 8).pow(3) * torch.logspace(-4, 4, 8)
    model = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(8))
    lens = Lens.from_name("activation_outlier_index", q=q)
    result = lens.run(model, list(x.split(cuts)), progress=False)
    found = result["model"]["activation_outlier_index"].numpy()
    # Below 16 octaves of the largest value everything counts as zero: what q=0 is about.
    floor = 2.0**-15 * x.abs().amax(0).numpy() / x.abs().mean(0).numpy()
    expected = activation.outlier_index(as_array(x), q)
    assert (np.abs(found - expected) <= np.maximum(0.01 * expected, floor)).all()


def test_heavy_tails_stand_out():
    x = torch.randn(5000, 2)
    x[:20, 1] *= 50
    lens = Lens.from_name("activation_outlier_index")
    light, heavy = lens.compute(outputs=x).tolist()
    assert light < 5 < 20 < heavy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_activations_are_summed_in_wider_numbers(dtype: torch.dtype):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).to(dtype)
    batches = list((torch.randn(3000, 6) + 4).to(dtype).split(700))
    # A bfloat16 sum of 3000 fours stands still at 1024.
    found = Lens.from_name("activation_mean").run(model, batches, progress=False)
    variance = Lens.from_name("activation_variance").run(model, batches, progress=False)
    for name, captured in capture(model, [Plain((x,)) for x in batches]).items():
        rows = pixels(captured.outputs)
        for result, expected in (
            (found, activation.mean_size(rows)),
            (variance, activation.variance(rows)),
        ):
            np.testing.assert_allclose(next(iter(result[name].values())), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(6, 4), (50, 6)),
        (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), (20, 4, 6, 5)),
        (nn.Conv1d(2, 3, 3, dilation=2, padding=2, padding_mode="circular"), (20, 2, 9)),
    ],
    ids=["linear", "conv2d", "conv1d"],
)
@pytest.mark.parametrize("relative", [True, False])
def test_delta_alignment_is_the_quotient_of_what_training_changed(
    model: nn.Module, shape: tuple[int, ...], relative: bool
):
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.weight += 0.1 * torch.randn_like(model.weight)
        model.weight[0] = initial["weight"][0]
    batches = list(torch.randn(shape).split(7))
    lens = Lens.from_name("delta_alignment", relative=relative)
    result = lens.run(model, batches, initial_weights=initial, progress=False)
    captured = capture(model, [Plain((x,)) for x in batches])["model"]
    before = as_array(initial["weight"]).reshape(captured.weight.shape)
    expected = alignment.rayleigh_quotient(
        captured, relative=relative, weight=captured.weight - before
    )
    assert expected[0] == 0
    np.testing.assert_allclose(result["model"]["delta_alignment"], expected, rtol=1e-5)


def test_delta_alignment_takes_a_whole_state_dict_and_layers_by_name():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    initial = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    x = torch.randn(40, 4)
    scores = Lens.from_name("delta_alignment").analyse(model, x, initial_weights=initial)
    whole = Lens.from_name("rayleigh_quotient").analyse(model, x)
    named = {"0": initial["0.weight"], "1": initial["1.weight"]}
    again = Lens.from_name("delta_alignment").analyse(model, x, initial_weights=named)
    for layer in whole:
        expected = whole[layer]["rayleigh_quotient"]
        torch.testing.assert_close(scores[layer]["delta_alignment"], expected, rtol=1e-6, atol=0)
        assert torch.equal(again[layer]["delta_alignment"], scores[layer]["delta_alignment"])
