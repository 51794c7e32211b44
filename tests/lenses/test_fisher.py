"""The empirical Fisher information of weights, against autograd one sample at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import Lens
from nodelens.metrics import get_metric
from nodelens.statistics import Sample, WeightFisher, gradients
from tests.model.families import VOCABULARY, language_model, text

DOUBLE = torch.float64


def sample_by_sample(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The mean of squared weight gradients of single samples, summed over rows, by layer."""
    total: dict[str, Tensor] = {}
    for one, label in zip(x.split(1), y.split(1), strict=True):
        named = {n: p for n, p in model.named_parameters() if n.endswith("weight")}
        slopes = torch.autograd.grad(cross_entropy(model(one), label), list(named.values()))
        for name, slope in zip(named, slopes, strict=True):
            square = slope.flatten(1).square().sum(1) / len(x)
            layer = name.removesuffix(".weight")
            total[layer] = total.get(layer, 0) + square
    return total


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(6, 4, (2, 3), groups=2, dilation=(2, 1), padding="same"),
        nn.Flatten(),
        nn.Linear(4 * 4 * 3, 3),
    ).double()


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize(
    ("make", "shape"), [(convolutions, (2, 7, 6)), (dense, (5,))], ids=["maps", "rows"]
)
@pytest.mark.parametrize("room", [1 << 22, 1], ids=["all samples at once", "one by one"])
def test_squares_are_those_of_autograd_for_every_sample(
    make: Any, shape: tuple[int, ...], room: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gradients, "_FISHER_ELEMENTS", room)
    model, x = make(), torch.randn(9, *shape, dtype=DOUBLE)
    y = torch.arange(9) % 3
    before = [p.requires_grad for p in model.parameters()]
    parts = list(zip(x.split([4, 5]), y.split([4, 5]), strict=True))
    result = Lens.from_name("fisher").run(model, parts, progress=False)
    for name, expected in sample_by_sample(model, x, y).items():
        torch.testing.assert_close(result[name]["fisher"], expected, rtol=1e-9, atol=0)
        assert result.rows[name] == 9
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())


def test_a_token_is_a_sample():
    model, batch = language_model("Llama", DOUBLE), text([7, 4])
    name = "model.layers.1.mlp.down_proj"
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        kept["x"], kept["y"] = args[0], output

    handle = model.get_submodule(name).register_forward_hook(keep)
    logits = model(**batch).logits
    handle.remove()
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    predicted = (mask[:, 1:] & mask[:, :-1]).reshape(-1)
    chosen = logits[:, :-1].reshape(-1, VOCABULARY)[predicted]
    loss = cross_entropy(chosen, ids[:, 1:].reshape(-1)[predicted], reduction="sum")
    (slope,) = torch.autograd.grad(loss, kept["y"])
    outer = torch.einsum("ri,rd->rid", slope[mask], kept["x"].detach()[mask])
    result = Lens.from_name("fisher", layers=name).analyse(model, batch)
    torch.testing.assert_close(result[name]["fisher"], outer.square().sum(2).mean(0))


def test_large_inputs_do_not_drown_small_gradients():
    """A map at 10^4 whose gradients sum to nothing over positions."""
    x = 1e4 + torch.randn(6, 2, 5, 5)
    module = nn.Conv2d(2, 3, 3)
    g = torch.randn(6, 3, 9)
    g -= g.mean(2, keepdim=True)
    found = get_metric("fisher").compute(
        inputs=x, outputs=module(x).detach(), weights=module.weight, gradients=g.view(6, 3, 3, 3)
    )
    patches = torch.nn.functional.unfold(x.double(), 3)
    slopes = g.double() @ patches.mT
    torch.testing.assert_close(found, slopes.square().sum(2).mean(0), rtol=1e-5, atol=0)


def test_a_unit_the_loss_does_not_feel_scores_nothing():
    model = dense()
    with torch.no_grad():
        model[2].weight[:, 0] = 0
    x, y = torch.randn(20, 5, dtype=DOUBLE), torch.arange(20) % 3
    scores = Lens.from_name("fisher").analyse(model, (x, y))["0"]["fisher"]
    assert scores[0] == 0 and (scores[1:] > 0).all()


def test_labels_made_in_inference_mode_are_labels():
    model, x = dense(), torch.randn(20, 5, dtype=DOUBLE)
    with torch.inference_mode():
        answers = model(x).argmax(1)
    lens = Lens.from_name("fisher")
    found, same = (
        lens.analyse(model, (x, y))["0"]["fisher"]
        for y in (answers, torch.tensor(answers.tolist()))
    )
    assert torch.equal(found, same) and found.any()


def test_a_silent_input_counts_for_nothing():
    g, x = torch.randn(20, 3), torch.randn(20, 4)
    wider = torch.cat([x, torch.zeros(20, 2)], 1)
    found = [WeightFisher.measure(Sample(g, g, inputs=i)).square for i in (x, wider)]
    torch.testing.assert_close(*found)
