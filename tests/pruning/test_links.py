"""Which layers read which: true for chains, skip connections and flattened maps, or left out."""

from __future__ import annotations

import torch
from torch import nn

from nodelens.model import ModelWrapper
from nodelens.model.architectures import build_model
from nodelens.pruning.links import Link, find_links


def links_of(module: nn.Module, *shape: int, layers=None):
    model = ModelWrapper(module)
    return find_links(model, model.prepare_batch(torch.zeros(shape)), layers or list(model.layers))


class Skipping(nn.Module):
    """`c` reads the sum of `a` and `b`; `late` is registered first and called last."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(6, 3)
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 6, 3)

    def forward(self, x):
        x = self.a(x).relu()
        return self.late(self.c(x + self.b(x)).relu().mean((2, 3)))


class Joining(nn.Module):
    """`c` reads `a` and `b` side by side: neither alone is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], 1).relu())


def test_a_chain_with_flattened_maps():
    found, without = links_of(
        build_model("small_cnn", shape=(1, 8, 8), classes=3, channels=[4, 6], hidden=[5], seed=0),
        *(2, 1, 8, 8),
    )
    assert found == [Link("conv1", "conv2"), Link("conv2", "fc1"), Link("fc1", "fc2")]
    assert list(without) == ["fc2"] and "model's output" in without["fc2"]


def test_a_skip_connection_is_followed():
    found, _ = links_of(Skipping(), 2, 1, 8, 8)
    assert {(link.source, link.target) for link in found} == {
        ("a", "b"), ("a", "c"), ("b", "c"), ("c", "late"),
    }  # fmt: skip


def test_a_concatenation_is_left_out_with_its_reason():
    found, without = links_of(Joining(), 2, 5)
    assert found == [] and set(without) == {"a", "b", "c"}
    assert "these alone, in order" in without["a"]


def test_only_the_layers_asked_for_and_the_model_is_as_it_was():
    module = Skipping().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found, _ = links_of(module, 2, 1, 8, 8, layers=["a", "c"])
    assert found == [Link("a", "c")]
    assert module.training and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[n], value) for n, value in module.state_dict().items())
    assert not any(m._forward_hooks for m in module.modules())
