"""Halos: a planted one is found and significant, one of sources that are like any other is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens.analysis.clustering import CrossLayerHaloAnalysis
from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from tests.oracles import clusters as oracle

CLUSTER, RECEIVERS = [1, 4, 9, 13], [0, 7, 22, 31]


def planted():
    """Weights by which four sources reach four of forty targets, and activations."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((40, 24))
    weights[np.ix_(RECEIVERS, CLUSTER)] *= 12
    return weights, random.standard_normal((200, 24)) * np.linspace(0.5, 2, 24)


def test_a_planted_halo_is_found_and_a_random_one_is_not_significant():
    halo = CrossLayerHaloAnalysis()
    influence = halo.compute_influence(*planted())
    indices, relative = halo.find_halo(influence, CLUSTER)
    assert indices.tolist() == RECEIVERS
    np.testing.assert_allclose(relative, oracle.relative_influence(influence.numpy(), CLUSTER))
    redundancy = np.isin(np.arange(40), RECEIVERS).astype(float)
    tested = halo.permutation_test(influence, CLUSTER, redundancy=redundancy, permutations=199)
    assert tested["influence"].p_greater == 1 / 200 and tested["influence"].z > 4
    assert tested["redundancy"].observed == 1 and tested["redundancy"].z > 2
    other = halo.permutation_test(influence, [2, 5, 8, 20], permutations=199)["influence"]
    assert other.p_greater > 0.05
    shuffled = np.random.default_rng(1).permuted(influence.numpy(), axis=1)
    again = halo.permutation_test(shuffled, CLUSTER, permutations=199)["influence"]
    assert again.p_greater > 0.05


def test_p_values_are_even_under_the_null():
    random = np.random.default_rng(2)
    halo = CrossLayerHaloAnalysis(percentile=80)
    p_values = [
        halo.permutation_test(random.random((20, 12)), [0, 1, 2], permutations=99)[
            "influence"
        ].p_greater
        for _ in range(60)
    ]
    assert 0.4 < np.mean(p_values) < 0.6 and min(p_values) >= 0.01
    assert np.mean(np.array(p_values) <= 0.2) < 0.4


def test_influence_is_the_size_of_weights_times_what_varies():
    weights, activations = planted()
    expected = oracle.influence(weights, activations.std(0))
    found = CrossLayerHaloAnalysis().compute_influence(torch.tensor(weights), activations)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    tokens = activations.reshape(10, 20, 24)
    np.testing.assert_allclose(
        CrossLayerHaloAnalysis().compute_influence(weights, tokens), expected
    )
    for bare in (
        CrossLayerHaloAnalysis().compute_influence(weights),
        CrossLayerHaloAnalysis(use_activation_weight=False).compute_influence(weights, activations),
    ):
        np.testing.assert_allclose(bare, np.abs(weights))


@pytest.mark.parametrize("groups", [1, 2])
def test_taps_are_summed_and_groups_do_not_mix(groups):
    random = np.random.default_rng(1)
    weights = random.standard_normal((4, 6 // groups, 3, 2))
    maps = random.standard_normal((9, 6, 5, 4))
    found = CrossLayerHaloAnalysis().compute_influence(weights, maps, groups=groups)
    expected = oracle.influence(weights, maps.std((0, 2, 3)), groups)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_positions_of_flattened_maps_belong_to_their_channel():
    random = np.random.default_rng(1)
    weights, maps = random.standard_normal((5, 3 * 8)), random.standard_normal((9, 3, 2, 4))
    found = CrossLayerHaloAnalysis().compute_influence(weights, maps)
    expected = np.abs(weights).reshape(5, 3, 8).sum(2) * maps.std((0, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-5, 1e5, 1e-160])
def test_scales_do_not_count(scale):
    weights, activations = planted()
    halo = CrossLayerHaloAnalysis()
    before = halo.compute_influence(weights, activations)
    after = halo.compute_influence(weights, scale * activations)
    torch.testing.assert_close(
        halo.find_halo(before, CLUSTER), halo.find_halo(after, CLUSTER), rtol=1e-9, atol=0
    )
    first, second = (
        halo.permutation_test(i, CLUSTER, permutations=49)["influence"] for i in (before, after)
    )
    assert first.p_value == second.p_value and first.z == pytest.approx(second.z)


def test_flow_on_paper():
    influence = np.array([[1.0, 2, 0], [3, 0, 0], [0, 0, 0], [4, 0, 0]])
    flow = CrossLayerHaloAnalysis().cluster_flow(influence, [0, 1, 2], [0, 1, 1, 1])
    np.testing.assert_allclose(flow, [[1 / 8, 7 / 8], [1, 0], [0, 0]])
    each = CrossLayerHaloAnalysis().cluster_flow(influence, [0, 1, 2], [0, 1, 1, 1], per_unit=True)
    np.testing.assert_allclose(each, [[3 / 10, 7 / 10], [1, 0], [0, 0]])


def test_targets_that_nothing_reaches_are_in_no_halo():
    halo = CrossLayerHaloAnalysis(percentile=0)
    indices, relative = halo.find_halo([[0.0, 0.0], [1.0, 3.0], [0.0, 2.0]], [0])
    assert relative.tolist() == [0, 0.25, 0] and indices.tolist() == [1]
    mask = halo.find_halo([[0.0, 0.0], [1.0, 3.0], [0.0, 2.0]], np.array([True, False]))
    assert mask[0].tolist() == [1]
    assert len(halo.find_halo([[1.0, 1.0]], [])[0]) == 0


def test_a_halo_is_described_beside_the_rest():
    said = CrossLayerHaloAnalysis().analyse_halo([1, 2], [1.0, 2, 4, 9], None, "fc", "critical")
    assert (said.redundancy, said.other_redundancy, said.synergy) == (3, 5, None)
    assert said.halo_size == 2 and (said.layer_name, said.source_cluster) == ("fc", "critical")
    assert CrossLayerHaloAnalysis().analyse_halo([], [1.0, 3.0]).redundancy is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda h: h.find_halo(np.ones((2, 3)), [3]), InvalidValueError, "cluster holds 3"),
        (lambda h: h.find_halo(np.ones((2, 3)), [True]), ShapeError, r"expected \(3,\)"),
        (lambda h: h.find_halo(-np.ones((2, 3)), [0]), InvalidValueError, "none below 0"),
        (lambda h: h.find_halo(np.full((2, 3), np.nan), [0]), NonFiniteError, "6 of 6"),
        (lambda h: h.find_halo(np.ones(3), [0]), ShapeError, r"\(targets, sources\)"),
        (lambda h: h.compute_influence(np.ones((2, 3)), np.ones((9, 2))), ShapeError, "3 inputs"),
        (lambda h: h.compute_influence(np.ones(3)), ShapeError, r"\(targets, inputs\)"),
        (lambda h: h.compute_influence(np.ones((3, 2)), groups=2), InvalidValueError, "groups"),
        (lambda h: h.permutation_test(np.ones((2, 3)), []), InvalidValueError, "no source"),
        (lambda h: h.cluster_flow(np.ones((2, 3)), [0, 1], [0, 1]), ShapeError, "source_labels"),
        (lambda h: CrossLayerHaloAnalysis(101.0), InvalidValueError, "percentile is 101"),
    ],
)
def test_what_has_no_halo_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call(CrossLayerHaloAnalysis())
