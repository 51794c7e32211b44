"""The same code on plain tensors: what a traced module gives, `compute` gives from its tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import Lens
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.metrics import get_metric
from nodelens.metrics.facts import LensFacts
from tests.lenses.catalogue import TABLE
from tests.lenses.test_kinds_of_targets import REFUSED
from tests.oracles.capture import Plain, capture

THIS = "compute.test_tensors_give_what_their_module_gives"
METRICS = [name for name, row in TABLE.items() if row.plain == THIS]
MODULES = {
    "linear": (lambda: nn.Linear(6, 4), (30, 6)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, padding=1), (10, 3, 5, 6)),
    "tokens": (lambda: nn.Linear(6, 4), (10, 5, 6)),
    "uneven kernel": (lambda: nn.Conv1d(3, 4, 2, bias=False), (10, 3, 9)),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
def test_tensors_give_what_their_module_gives(make: Any, shape: tuple[int, ...], name: str):
    module, x = make(), torch.randn(shape)
    y = torch.arange(len(x)) % 3
    outputs = module(x).detach().requires_grad_()
    loss = summed(outputs, y)
    gradients = torch.autograd.grad(loss, outputs)[0]
    options = {"targets": y, "loss": summed}
    expected = Lens.from_name(name).analyse(module, (x, options))["model"][name]
    found = get_metric(name).compute(
        inputs=x, outputs=outputs, weights=module.weight, gradients=gradients, targets=y
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


NUMBERS = [
    name
    for name in METRICS
    if "targets" in LensFacts.of(name).needs
    and not {"number", "numbers"} & set(REFUSED.get(name, {}))
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("rows", [(20,), (20, 3)], ids=["rows", "tokens"])
def test_numbers_and_rows_without_a_target_are_as_on_the_module(rows: tuple[int, ...], name: str):
    module, x = nn.Linear(6, 4), torch.randn(*rows, 6)
    options = {"targets": "numbers"} if name == "representation_quality" else {}
    labels = torch.arange(x[..., 0].numel()).view(rows) % 3
    labels[::4] = -100
    for targets in (torch.randn(20), torch.randn(20, 2), labels, torch.randn(*rows, 1)):
        if options and not targets.is_floating_point():
            continue
        expected = Lens.from_name(name, **options).analyse(module, (x, targets))["model"][name]
        found = get_metric(name, **options).compute(
            inputs=x, outputs=module(x).detach(), weights=module.weight, targets=targets
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("scar_")])
def test_units_of_a_block_score_as_on_the_model(name: str):
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(9, 3).double(), torch.arange(9) % 3
    seen = capture(model, [Plain((x,), loss=lambda o: summed(o, y))])["2"]
    given = {"inputs": seen.inputs, "gradients": seen.input_gradients}
    found = get_metric(name).compute(**{site: torch.from_numpy(v) for site, v in given.items()})
    expected = Lens.from_name(name).analyse(model, (x, y))["2"][name]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    scores = outputs.flatten(2).mean(2) if outputs.ndim > 2 else outputs
    return cross_entropy(scores, targets, reduction="sum")


@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
def test_outputs_follow_from_inputs_and_weights(make: Any, shape: tuple[int, ...]):
    module, x = make(), torch.randn(shape)
    metric = get_metric("rayleigh_quotient", relative=False)
    if isinstance(module, nn.Conv2d):
        module.padding = (0, 0)
        module._reversed_padding_repeated_twice = [0, 0, 0, 0]
    expected = Lens.from_name("rq", relative=False).analyse(module, x)["model"]
    found = metric.compute(inputs=x, weights=module.weight)
    torch.testing.assert_close(found, expected["rayleigh_quotient"], rtol=1e-5, atol=0)


def test_maps_alone_have_their_channels_on_the_second_axis():
    maps = torch.randn(10, 3, 4, 5)
    rows = maps.movedim(1, -1).reshape(-1, 3)
    for name in ("activation_variance", "average_redundancy", "activation_outlier_index"):
        metric = get_metric(name)
        torch.testing.assert_close(metric.compute(outputs=maps), metric.compute(outputs=rows))


def test_tokens_have_their_channels_last():
    tokens = torch.randn(4, 7, 5)
    metric = get_metric("activation_variance")
    assert torch.equal(metric.compute(outputs=tokens), metric.compute(outputs=tokens.flatten(0, 1)))


def test_delta_alignment_takes_the_weights_from_before():
    x, before, after = torch.randn(30, 6), torch.randn(4, 6), torch.randn(4, 6)
    found = get_metric("delta_alignment").compute(inputs=x, weights=after, initial_weights=before)
    expected = get_metric("rayleigh_quotient").compute(inputs=x, weights=after - before)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_what_a_score_needs_and_does_not_get_is_named():
    with pytest.raises(InvalidValueError, match="'taylor_saliency' needs gradients= to compute"):
        get_metric("taylor_saliency").compute(outputs=torch.randn(9, 3))
    with pytest.raises(InvalidValueError, match="no tensor was given"):
        get_metric("activation_mean").compute()
    with pytest.raises(ShapeError, match="do not come from inputs of shape"):
        get_metric("rq").compute(
            inputs=torch.randn(2, 3, 9, 9),
            weights=torch.randn(4, 3, 3, 3),
            outputs=torch.randn(2, 4, 4, 4),
        )
    with pytest.raises(ShapeError, match="10 targets for 20 rows"):
        get_metric("mi_gaussian").compute(outputs=torch.randn(20, 3), targets=torch.randn(10))
