"""A layer of a model spread over devices is measured where its weights are.

There is one device here: torch's meta device, which keeps shapes alone, stands for another.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens, ModelWrapper
from nodelens.data import as_batch
from nodelens.errors import IncompatibleModelError
from nodelens.model.gather import Seen, plan_reads
from nodelens.model.rows import paired_rows

FAR = torch.device("meta")


def test_what_comes_from_another_device_is_measured_where_the_weights_are():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    wrapper, batch = ModelWrapper(model), as_batch(torch.randn(5, 4))
    route = wrapper.route(batch)
    lens = Lens.from_name("rayleigh_quotient")
    layers = list(wrapper.layers.values())
    wanted = {layer.name: list(lens.reads(layer).values()) for layer in layers}
    for visit in plan_reads(wrapper, route, wanted, layers).visits:
        assert visit.device == torch.device("cpu")
        far = type(visit)(visit.layer, visit.site, visit.number, visit.reads, FAR)
        width = visit.layer.inputs if visit.site == "input" else visit.layer.channels
        here: Tensor = torch.randn(5, width)
        assert Seen(far, here, None).canonical(batch).device == FAR
        assert far.canonical(here, visit.site, batch).device == FAR
        assert Seen(visit, here, None).canonical(batch).data_ptr() == here.data_ptr()


def test_weights_that_come_and_go_leave_a_site_where_it_is():
    model = nn.Sequential(nn.Linear(4, 3))
    wrapper = ModelWrapper(model)
    route = wrapper.route(as_batch(torch.randn(5, 4)))
    layers = list(wrapper.layers.values())
    lens = Lens.from_name("activation_mean")
    wanted = {layer.name: list(lens.reads(layer).values()) for layer in layers}
    model.to(FAR)
    assert [v.device for v in plan_reads(wrapper, route, wanted, layers).visits] == [None]


def test_two_layers_on_two_devices_are_measured_on_the_first_one_s():
    layer = ModelWrapper(nn.Linear(4, 3)).layers["model"]
    batch = as_batch(torch.randn(5, 4))
    mine, theirs = paired_rows(torch.empty(5, 3, device=FAR), torch.randn(5, 2), batch, layer)
    assert mine.device == theirs.device == FAR
    _, pooled = paired_rows(torch.empty(5, 3, device=FAR), torch.randn(5, 2, 6), batch, layer)
    assert pooled.device == FAR and pooled.shape == (5, 2)


def test_weights_that_are_not_here_cannot_be_read():
    wrapper = ModelWrapper(nn.Sequential(nn.Linear(4, 3)))
    route = wrapper.route(as_batch(torch.randn(5, 4)))
    layers = list(wrapper.layers.values())
    lens = Lens.from_name("rayleigh_quotient")
    wanted = {layer.name: list(lens.reads(layer).values()) for layer in layers}
    wrapper.module.to(FAR)
    with pytest.raises(IncompatibleModelError, match="weights of layer '0' are off-loaded"):
        plan_reads(wrapper, route, wanted, layers)
