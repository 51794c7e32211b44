"""What must hold of scores whatever the data: units, scale, order of channels, dead channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, LensResult
from nodelens.errors import InvalidValueError
from nodelens.metrics import get_metric, list_metrics

DOUBLE = torch.float64


def test_white_inputs_give_every_unit_the_same_quotient():
    drawn = torch.randn(300, 5, dtype=DOUBLE)
    inputs = torch.linalg.qr(drawn - drawn.mean(0)).Q * 299**0.5
    weights = torch.randn(7, 5, dtype=DOUBLE)
    absolute = get_metric("rayleigh_quotient", relative=False, regularization=0.0)
    relative = get_metric("rayleigh_quotient", regularization=0.0)
    ones = torch.ones(7, dtype=DOUBLE)
    torch.testing.assert_close(absolute.compute(inputs=inputs, weights=weights), ones)
    torch.testing.assert_close(relative.compute(inputs=inputs, weights=weights), ones / 5)


def test_weights_along_a_principal_direction_give_its_variance():
    inputs = torch.randn(200, 4, dtype=DOUBLE) @ torch.randn(4, 4, dtype=DOUBLE)
    variances, directions = torch.linalg.eigh(torch.cov(inputs.T))
    metric = get_metric("rayleigh_quotient", relative=False, regularization=0.0)
    found = metric.compute(inputs=inputs, weights=3 * directions.T)
    torch.testing.assert_close(found, variances)


def test_the_quotient_does_not_depend_on_the_size_of_a_weight_row():
    inputs, weights = torch.randn(200, 4, dtype=DOUBLE), torch.randn(6, 4, dtype=DOUBLE)
    scaled = weights * torch.logspace(-3, 3, 6, dtype=DOUBLE)[:, None]
    for relative in (True, False):
        metric = get_metric("rayleigh_quotient", relative=relative)
        torch.testing.assert_close(
            metric.compute(inputs=inputs, weights=scaled),
            metric.compute(inputs=inputs, weights=weights),
        )


def test_the_relative_quotient_does_not_depend_on_the_scale_of_the_inputs():
    inputs, weights = torch.randn(200, 4, dtype=DOUBLE), torch.randn(6, 4, dtype=DOUBLE)
    metric = get_metric("rayleigh_quotient", regularization=0.0)
    torch.testing.assert_close(
        metric.compute(inputs=100 * inputs - 7, weights=weights),
        metric.compute(inputs=inputs, weights=weights),
    )


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def every_metric(**options: Any) -> CompositeLens:
    apart = (
        "scar_",
        "attn_",
        "delta_alignment",
        "normalized_delta_",
        "bn_",
        "eigenvalue_alignment",
    )
    names = [n for n in list_metrics() if not n.startswith(apart) and "." not in n]
    return CompositeLens([Lens.from_name(name, **options) for name in names])


def test_permuting_the_channels_permutes_the_scores():
    model, permuted, order = network(), network(), torch.randperm(6)
    with torch.no_grad():
        permuted[0].weight.copy_(model[0].weight[order])
        permuted[0].bias.copy_(model[0].bias[order])
        permuted[2].weight.copy_(model[2].weight[:, order])
        permuted[2].bias.copy_(model[2].bias)
    batch = (torch.randn(40, 5, dtype=DOUBLE), torch.randint(0, 3, (40,)))
    lens = every_metric(layers=["0"])
    before, after = lens.analyse(model, batch)["0"], lens.analyse(permuted, batch)["0"]
    for score, values in before.items():
        # Numbers of the layer and scores of its inputs do not change.
        expected = values[order] if values.shape == (6,) else values
        torch.testing.assert_close(after[score], expected, rtol=1e-9, atol=1e-11)


def dead() -> LensResult:
    """The scores of three units: one alive, one that always gives 2, one without weights."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double()
    with torch.no_grad():
        model[0].weight[1:] = 0
        model[0].bias[1:] = torch.tensor([2.0, 0.0])
    batch = (torch.randn(30, 3, dtype=DOUBLE), torch.randint(0, 2, (30,)))
    return every_metric().analyse(model, batch)


DEAD = {
    "activation_kurtosis": [0.0, 0.0],
    "activation_l2_norm": [2.0, 0.0],
    "activation_max": [2.0, 0.0],
    "activation_mean": [2.0, 0.0],
    "activation_sparsity": [0.0, 1.0],
    "activation_variance": [0.0, 0.0],
    "average_redundancy": [0.0, 0.0],
    "gaussian_pid_synergy_mmi": [None, None],
    "mutual_information_gaussian": [0.0, 0.0],
    "pairwise_redundancy_gaussian": [0.0, 0.0],
    "rayleigh_quotient": [0.0, 0.0],
    "synergy_gaussian_mmi": [None, None],
    "weight_magnitude": [0.0, 0.0],
}


@pytest.mark.parametrize(("score", "expected"), DEAD.items())
def test_units_that_never_vary_have_a_documented_score(score: str, expected: list[float | None]):
    found = dead()["0"][score]
    assert torch.isfinite(found).all()
    if expected[0] is not None:
        assert found[1:].tolist() == expected


def test_norms_do_not_grow_with_the_number_of_rows():
    once = torch.randn(40, 5)
    for name in ("activation_l2_norm", "activation_mean", "activation_max", "rayleigh_quotient"):
        given = {"weights": torch.ones(5, 5)} if name == "rayleigh_quotient" else {}
        site = "inputs" if given else "outputs"
        few = get_metric(name).compute(**{site: once}, **given)
        many = get_metric(name).compute(**{site: once.repeat(100, 1)}, **given)
        torch.testing.assert_close(few, many, rtol=0.03, atol=0)


def test_two_values_have_the_lowest_kurtosis_there_is():
    outputs = torch.tensor([[1.0], [-1.0]]).repeat(50, 3)
    assert get_metric("activation_kurtosis").compute(outputs=outputs).tolist() == [-2.0] * 3


def quadratic(output: Tensor, targets: Any) -> Tensor:
    """A loss whose gradient at y is -y: descent then is Hebb's rule."""
    return -0.5 * output.square().sum()


@pytest.mark.parametrize("rule", ["hebbian", "anti_hebbian"])
@pytest.mark.parametrize("model", [nn.Linear(5, 4), nn.Conv2d(2, 3, 2)], ids=["linear", "conv"])
def test_descent_that_is_hebbs_rule_aligns_with_it(rule: str, model: nn.Module):
    x = torch.randn(30, 5) if isinstance(model, nn.Linear) else torch.randn(30, 2, 4, 4)
    lens = Lens.from_name("gradient_alignment", rule=rule)
    scores = lens.analyse(model, (x, {"loss": quadratic}))["model"]["gradient_alignment"]
    torch.testing.assert_close(scores, torch.ones_like(scores), rtol=0, atol=1e-6)


def test_a_rule_that_updates_a_row_alike_is_refused_with_the_reason():
    with pytest.raises(InvalidValueError, match=r"rule 'output' updates all entries .* alike"):
        Lens.from_name("gradient_alignment", rule="output")


def total(output: Tensor, targets: Any) -> Tensor:
    return output.sum()


def test_a_loss_that_is_the_sum_of_outputs_makes_taylor_the_mean_size():
    x, model = torch.randn(30, 5), nn.Linear(5, 4)
    lens = Lens.from_name("taylor_saliency")
    scores = lens.analyse(model, (x, {"loss": total}))["model"]["taylor_saliency"]
    expected = Lens.from_name("activation_mean").analyse(model, x)["model"]["activation_mean"]
    torch.testing.assert_close(scores, expected)


def test_taylor_does_not_depend_on_the_batch_size_unless_asked_to():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x, y = torch.randn(24, 5, dtype=DOUBLE), torch.randint(0, 3, (24,))
    for reduction, factor in (("sum", 1), ("mean", 4)):
        lens = Lens.from_name("taylor_saliency", reduction=reduction)
        whole = lens.analyse(model, (x, y)).scores()
        parts = list(zip(x.split(6), y.split(6), strict=True))
        cut = lens.run(model, parts, progress=False).scores()
        for layer, scores in whole.items():
            torch.testing.assert_close(cut[layer], scores * factor)
