"""All metrics at once on a trained network: one pass without gradients, one with them."""

from __future__ import annotations

import pytest

from nodelens import CompositeLens
from nodelens.metrics import list_metrics
from nodelens.metrics.facts import LensFacts
from nodelens.statistics import Statistic
from projects.all_metrics.measure import fitting, own_options
from projects.all_metrics.networks import digits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    return digits()


def test_every_metric_is_measured_or_refused_with_its_reason(network):
    lenses, options, refused = fitting(network)
    assert {lens.name for lens in lenses} | refused.keys() == set(list_metrics())
    assert all(reason for reason in refused.values()) and len(lenses) > 60
    scored: set[str] = set()
    for gradient in (False, True):
        group = [x for x in lenses if ("loss" in LensFacts.of(x.name).needs) == gradient]
        composite = CompositeLens(group)
        own = own_options(composite, network, options)
        result = composite.run(network.model, network.batches(), progress=False, **own)
        scored |= {name.split(".")[0] for name in result.score_names}
    assert scored == {lens.name for lens in lenses}


def test_what_is_kept_is_what_was_planned(network):
    lenses, options, _ = fitting(network)
    composite = CompositeLens([x for x in lenses if "loss" not in LensFacts.of(x.name).needs])
    own = own_options(composite, network, options)
    batches = network.batches()
    planned = sum(composite.plan(network.model, batches[0], **own).bytes.values())
    aggregator = composite.measure(network.model, batches, progress=False, **own)
    held = sum(
        tensor.numel() * tensor.element_size()
        for found in aggregator.statistics.values()
        for statistic in found.values()
        if isinstance(statistic, Statistic)
        for tensor in statistic.state().values()
    )
    assert held == pytest.approx(planned, rel=0.02)
