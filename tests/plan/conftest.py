"""Two small networks with batches and all built-in lenses, and what an aggregator holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from nodelens import Aggregator, CompositeLens, Lens, MetricLens, ModelWrapper


@dataclass(frozen=True)
class Setting:
    """A network, its batches of `(inputs, classes)`, and every metric lens that can score it."""

    model: nn.Module
    batches: list[Any]

    def lenses(self) -> list[Lens]:
        wrapper = ModelWrapper(self.model)
        wrapper.route(wrapper.prepare_batch(self.batches[0]))
        kinds = [Lens.named(name) for name in Lens.names()]
        made = [k.example(wrapper)[0] for k in kinds if issubclass(k, MetricLens)]
        pairs = Lens.from_name("pairwise_redundancy_gaussian", partners="random", k=3, matrix=True)
        principal = Lens.from_name("mutual_information_gaussian", reference="pc1")
        # Those whose reads depend on the model are measured in one pass of their own.
        able = [lens for lens in made if lens.is_compatible(wrapper) and lens.by_layer]
        return [*able, pairs, principal]

    def everything(self) -> CompositeLens:
        return CompositeLens(self.lenses())

    @property
    def options(self) -> dict[str, Any]:
        before = {name: weight + 0.01 for name, weight in self.model.state_dict().items()}
        return {"initial_weights": before}


def cnn() -> Setting:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    return Setting(model, batches(torch.randn(20, 1, 8, 8)))


def mlp() -> Setting:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6), nn.Tanh(), nn.Linear(6, 4))
    return Setting(model.double(), batches(torch.randn(20, 6).double()))


def batches(inputs: torch.Tensor) -> list[Any]:
    classes = torch.arange(20) % 4
    return list(zip(inputs.split([7, 8, 5]), classes.split([7, 8, 5]), strict=True))


@pytest.fixture(params=[cnn, mlp], ids=["cnn", "mlp"])
def setting(request: pytest.FixtureRequest) -> Setting:
    return request.param()


def held(aggregator: Aggregator) -> int:
    """The bytes of all tensors that an aggregator holds, each storage counted once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for found in aggregator.statistics.values()
        for statistic in found.values()
        for tensor in statistic.state().values()
    }
    return sum(storages.values())
