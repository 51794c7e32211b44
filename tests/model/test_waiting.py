"""What waits for another layer, the outputs or a gradient: kept as it was, and let go of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.errors import NonFiniteError
from nodelens.model.gather import GRADIENT, Gathering, gather, measure_gradients, plan_reads
from nodelens.model.loss import predict
from nodelens.statistics import CrossMoments, Read, WeightUpdates

LATER = ["cross_layer_redundancy", "synergy_continuous_target", "taylor_saliency"]


class Residual(nn.Module):
    """A stream that is added to in place behind the layers that read it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        made = self.first(x).detach()  # in place where autograd would refuse it
        x += made.tanh()
        made += 100
        x += self.second(x)
        out: Tensor = self.head(x)
        return out


def passed(names: list[str], model: nn.Module, batch: Any) -> tuple[ModelWrapper, Gathering]:
    wrapper = ModelWrapper(model)
    prepared, lens = wrapper.prepare_batch(batch), CompositeLens(list(map(Lens.from_name, names)))
    route = wrapper.route(prepared)
    wanted = lens.wanted(wrapper)
    stops = plan_reads(wrapper, route, wanted, [wrapper.layers[name] for name in wanted])
    found = wrapper.trace(
        prepared, [lambda: gather(wrapper, prepared, stops)], gradients=stops.gradients
    )
    return wrapper, found[0]


def batch(rows: int = 20) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, 4), torch.arange(rows) % 3


def test_all_that_waited_is_let_go_of():
    model = Residual()
    _, forward = passed(LATER[:2], model, batch())
    assert forward.outputs is None and not forward.waiting
    wrapper, both = passed(LATER, nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), batch())
    assert set(both.waiting) == {GRADIENT} and both.outputs is not None
    with torch.enable_grad():
        measure_gradients(both, predict(both.outputs, both.batch, wrapper.module, None))
    assert not both.waiting and both.outputs is None


def test_an_output_that_is_written_to_while_it_waits_is_what_the_layer_gave():
    model, (x, y) = Residual().double(), batch()
    x = x.double()
    lens = Lens.from_name("mutual_information_gaussian", target="correct_logit", layers="first")
    aggregator = lens.measure(model, [(x, y)], progress=False)
    (moments,) = (s for s in aggregator.statistics["first"].values() if isinstance(s, CrossMoments))
    torch.testing.assert_close(moments.mean, model.first(x).mean(0).detach())


def test_an_input_that_is_written_to_while_it_waits_is_what_the_layer_read():
    torch.manual_seed(0)

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            made = self.layer(x)
            x += 50
            out: Tensor = self.head(made)
            return out

    model, (x, y) = Written(), batch()
    lens = Lens.from_name("gradient_alignment", layers="layer")
    aggregator = lens.measure(model, [(x, y)], progress=False)
    (found,) = (s for s in aggregator.statistics["layer"].values() if isinstance(s, WeightUpdates))
    made = model.layer(x).detach().requires_grad_()
    loss = cross_entropy(model.head(made), y, reduction="sum")
    expected = (torch.autograd.grad(loss, made)[0].mT @ x).double()
    torch.testing.assert_close(found.gradient.abs(), expected.abs(), rtol=1e-4, atol=1e-5)


def test_the_layer_where_a_bad_number_began_is_named():
    model, (x, y) = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)), batch()
    x[3, 2] = torch.nan
    for name in LATER[:2]:
        with pytest.raises(NonFiniteError, match=f"lens '{name}', batch 0.*layer '0'.*output"):
            Lens.from_name(name).analyse(model, (x, y))
    with torch.no_grad():
        model[2].weight[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"layer '0'.*target 'correct_logit'"):
        Lens.from_name("mi_gaussian", target="correct_logit").analyse(model, batch())


def test_what_needs_no_target_is_read_once_whatever_the_target():
    one, other = (Read("output", WeightUpdates, target=t) for t in ("targets", "logit_margin"))
    assert one == other
