"""The same code on plain tensors: what a traced module gives, `compute` gives from its tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import Lens
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.metrics import get_metric, list_metrics

# What they compare a layer with is given to a run.
GIVEN = ("delta_alignment", "normalized_delta_alignment", "eigenvalue_alignment")
# Feed-forward blocks, attention heads, norms and the next layer are not shown by one tensor; what
# is about logits takes them as targets (tests/lenses/test_across.py).
UNSEEN = ("scar_", "attn_", "bn_scale", "adaptive_", "cross_layer_", "layer_transition_")
METRICS = [
    name
    for name in list_metrics()
    if not name.startswith(UNSEEN) and name not in (*GIVEN, "synergy_continuous_target")
]
MODULES = {
    "linear": (lambda: nn.Linear(6, 4), (30, 6)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, padding=1), (10, 3, 5, 6)),
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
