"""The flow between types, beside types that are dealt out anew."""

from __future__ import annotations

import numpy as np
import pytest

from nodelens.analysis.clustering import CrossLayerHaloAnalysis, flow_test
from nodelens.errors import InvalidValueError, ShapeError

SOURCES = ["a"] * 3 + ["b"] * 5
TARGETS = ["x"] * 4 + ["y"] * 12


def flows(influence, **options):
    found = flow_test(influence, SOURCES, TARGETS, **options)
    return {(one.source_type, one.target_type): one for one in found}


def test_shares_are_those_of_the_cluster_flow():
    influence = np.random.default_rng(0).random((16, 8))
    labels = [np.array([name == other for name in types]).astype(int)
              for types, other in ((SOURCES, "b"), (TARGETS, "y"))]  # fmt: skip
    analysis = CrossLayerHaloAnalysis()
    whole = analysis.cluster_flow(influence, *labels).numpy()
    unit = analysis.cluster_flow(influence, *labels, per_unit=True).numpy()
    found = flows(influence, permutations=9)
    for i, source in enumerate("ab"):
        for j, target in enumerate("xy"):
            one = found[source, target]
            assert one.share.observed == pytest.approx(whole[i, j])
            assert one.per_unit == pytest.approx(unit[i, j])


def test_equal_influence_flows_by_size_and_is_no_finding():
    one = flows(np.ones((16, 8)), permutations=49)["a", "y"]
    assert one.share.observed == one.share.null_mean == 12 / 16
    assert one.share.p_value == 1 and one.per_unit == 0.5


def test_a_planted_flow_is_found_and_the_other_type_has_none():
    influence = 0.5 + 0.1 * np.random.default_rng(1).random((16, 8))
    influence[:4, :3] *= 6
    found = flows(influence, permutations=999)
    assert found["a", "x"].share.p_value <= 0.01
    assert found["a", "x"].share.observed > 0.6
    assert found["a", "x"].share.null_mean == pytest.approx(0.25, abs=0.02)
    assert found["b", "x"].share.p_value > 0.05


def test_sources_that_reach_nothing_flow_nowhere():
    influence = np.ones((16, 8))
    influence[:, :3] = 0
    one = flows(influence, permutations=9)["a", "x"]
    assert (one.share.observed, one.per_unit, one.share.p_value) == (0, 0, 1)


def test_the_seed_decides():
    influence = np.random.default_rng(2).random((16, 8))
    assert flows(influence, seed=1) == flows(influence, seed=1)
    assert flows(influence, seed=1) != flows(influence, seed=2)


def test_what_does_not_fit_is_told():
    with pytest.raises(ShapeError, match=r"shape \(8, 16\), expected \(16, 8\)"):
        flow_test(np.ones((8, 16)), SOURCES, TARGETS)
    with pytest.raises(InvalidValueError, match="permutations is 0"):
        flow_test(np.ones((16, 8)), SOURCES, TARGETS, permutations=0)
