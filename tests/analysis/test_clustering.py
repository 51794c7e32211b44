"""Clusters in metric space: planted blobs are found, noise is said to be noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens.analysis.clustering import (
    MetricSpaceClustering,
    gap_statistic,
    stability,
    structure_test,
)
from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from tests.oracles.clusters import nearest_centroid

PLANTED = {
    "critical": (3.0, 0.1, 0.2),
    "redundant": (0.0, 2.0, 0.2),
    "synergistic": (0.0, 0.1, 1.5),
    "background": (-3.0, 0.1, 0.2),
}
MAPPINGS = ("greedy", "global", "global_simple", "prototype")


def blobs(each: int = 20, spread: float = 0.05):
    """Scores of channels of four kinds, in turns, and their kinds."""
    random = np.random.default_rng(0)
    centres = np.array(list(PLANTED.values()) * each)
    points = centres + spread * random.standard_normal(centres.shape)
    return (np.exp(points[:, 0]), points[:, 1], points[:, 2]), list(PLANTED) * each


def noise(seed: int, kind: str = "plain"):
    points = np.random.default_rng(seed).standard_normal((60, 3))
    if kind == "elongated":
        points[:, 1] += 2 * points[:, 0]
    if kind == "skewed":
        points = np.exp(points)
    return np.exp(points[:, 0]), points[:, 1], points[:, 2]


def quick(**options) -> MetricSpaceClustering:
    return MetricSpaceClustering(shuffles=0, **options)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_four_blobs_are_four_types(mapping):
    scores, kinds = blobs()
    found = quick(type_mapping=mapping).fit(*scores, layer_name="conv1")
    assert found.channel_types == kinds
    assert found.counts == dict.fromkeys(("critical", "synergistic", "redundant", "background"), 20)
    assert found.silhouette > 0.8 and found.features == ("log_rq", "redundancy", "synergy")
    labels = found.labels.numpy()
    assert (nearest_centroid(found.points.numpy(), labels) == labels).all()
    assert found.channels_of("critical").tolist() == list(range(0, 80, 4))


def test_blobs_are_tighter_than_noise_and_the_same_again():
    scores, _ = blobs()
    found = MetricSpaceClustering(shuffles=39).fit(*scores, layer_name="conv1")
    assert found.structure.p_value == 1 / 40 and found.has_structure
    assert "conv1" in str(found) and "tighter than noise" in str(found)
    assert stability(found, samples=5) == 1
    assert gap_statistic(found.points.numpy(), most=6, samples=6)[0] == 4


@pytest.mark.parametrize("kind", ["plain", "elongated", "skewed"])
def test_noise_is_reported_as_no_structure(kind):
    found = [MetricSpaceClustering(shuffles=19).fit(*noise(seed, kind)) for seed in range(1, 7)]
    p_values = [one.structure.p_value for one in found]
    # Under the null p is even on (0, 1]: five of six above 0.05 but with probability 3%.
    assert sum(p > 0.05 for p in p_values) >= 5 and np.mean(p_values) > 0.25
    silent = next(one for one in found if not one.has_structure)
    assert "no structure" in str(silent) and set(silent.counts) == set(PLANTED)
    assert stability(silent, samples=5) < 0.9


def test_elongated_noise_deceives_a_null_that_forgets_correlation():
    points = quick().fit(*noise(1, "elongated")).points.numpy()
    assert structure_test(points, 4, samples=19, null="independent").significant()
    assert not structure_test(points, 4, samples=19).significant()


def test_gap_statistic_finds_one_cluster_in_noise():
    assert gap_statistic(quick().fit(*noise(3)).points.numpy(), most=5, samples=6)[0] == 1


@pytest.mark.parametrize(
    "scale", [1e-150, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1e-5, 1e5))]
)
def test_scales_do_not_count(scale):
    scores, _ = blobs(each=8, spread=0.4)
    tested = MetricSpaceClustering(shuffles=19)
    before, after = tested.fit(*scores), tested.fit(*(scale * values for values in scores))
    assert before.channel_types == after.channel_types
    assert before.structure.p_value == after.structure.p_value
    torch.testing.assert_close(before.centroids, after.centroids, rtol=1e-6, atol=1e-6)


def test_features_are_log_rq_redundancy_and_synergy_z_scored():
    rq, red, syn = noise(1)
    points = quick().fit(torch.tensor(rq), list(red), syn).points
    expected = [(v - v.mean()) / v.std() for v in (np.log(rq), red, syn)]
    np.testing.assert_allclose(points, np.array(expected).T, atol=1e-6)
    fewer = quick().fit(rq, red, syn, features="red_syn")
    assert fewer.features == ("redundancy", "synergy") and fewer.centroids.shape == (4, 2)
    np.testing.assert_allclose(fewer.points, np.array(expected[1:]).T, atol=1e-6)


def test_greedy_types_on_paper():
    # rq - red: 1, 3, 0.5, -1; of the rest the highest red is the third, then syn the fourth.
    centres = [(2.0, 1.0, 0.0), (3.0, 0.0, 9.0), (2.0, 1.5, 0.0), (0.0, 1.0, 5.0)]
    points = np.repeat(centres, 3, axis=0) + 1e-3 * np.tile([[-1], [0], [1]], (4, 1))
    found = quick().fit(np.exp(points[:, 0]), points[:, 1], points[:, 2])
    z = dict(zip(found.cluster_types, found.centroids.numpy(), strict=True))
    assert z["critical"][0] - z["critical"][1] == max(c[0] - c[1] for c in z.values())
    rest = [c for name, c in z.items() if name != "critical"]
    assert z["redundant"][1] == max(c[1] for c in rest)
    assert z["synergistic"][2] > z["background"][2]


def test_modes_by_importance():
    scores, kinds = blobs(each=6)
    worth = {"critical": 0.0, "redundant": 3.0, "synergistic": 1.0, "background": 2.0}
    importance = np.array([worth[kind] for kind in kinds])
    renamed = {"redundant": "critical", "background": "synergistic", "synergistic": "redundant"}
    expected = [renamed.get(kind, "background") for kind in kinds]
    for mode in ("importance_reassign", "score_augmented", "quantile"):
        found = quick().fit(*scores, importance=importance, mode=mode)
        assert found.channel_types == expected and found.mode == mode
    assert found.structure is None and found.has_structure is None
    augmented = quick().fit(*scores, importance=importance, mode="score_augmented")
    assert augmented.features[0] == "importance" and augmented.centroids.shape == (4, 4)


def test_quantiles_are_equal_parts():
    importance = np.arange(12.0)
    ones = np.ones(12)
    found = quick().fit(ones, ones, ones, importance=importance, mode="quantile")
    assert found.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    alike = quick().fit(ones, ones, ones, importance=ones, mode="quantile")
    assert alike.n_clusters == 1


def test_ablations_agree_where_a_metric_says_nothing_more():
    random = np.random.default_rng(5)
    rq = np.exp(np.repeat([-6.0, -2, 2, 6], 10) + 0.1 * random.standard_normal(40))
    red = np.log(rq) + 0.01 * random.standard_normal(40)
    found = quick().run_ablations(rq, red, np.zeros(40))
    assert found["all"].ari == found["all"].ami == 1
    assert found["rq_red"].ari == found["rq_only"].ari == 1
    assert found["syn_only"].ari == 0 and found["syn_only"].result.n_clusters == 1
    assert found["rq_only"].silhouette > 0.9


def test_layers_with_too_little_to_cluster():
    one = MetricSpaceClustering().fit([2.0], [1.0], [0.0])
    assert one.channel_types == ["background"] and one.structure.p_value == 1
    dead = MetricSpaceClustering().fit([0.0] * 6, [0.0] * 6, [0.0] * 6)
    assert set(dead.channel_types) == {"background"} and not dead.has_structure
    pair = quick().fit([1.0, 5.0, 5.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    assert pair.n_clusters == 2 and pair.silhouette == pytest.approx(2 / 3)
    partly = quick().fit([0.0, 1.0, 2.0, 4.0], [1.0, 2, 3, 4], [1.0, 0, 0, 1])
    assert partly.points[0, 0] == partly.points[1, 0]  # a dead channel beside the smallest


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (([1.0], [1.0, 2.0], [1.0]), {}, ShapeError, r"layer 'fc': redundancy has shape \(2,\)"),
        (([1.0], [np.nan], [1.0]), {}, NonFiniteError, "1 of 1 values of redundancy"),
        (([-1.0], [1.0], [1.0]), {}, InvalidValueError, "rq has the value -1"),
        (([], [], []), {}, InvalidValueError, "rq has no channel"),
        (([1.0],) * 3, {"features": "rq_rd"}, InvalidValueError, "did you mean 'rq_red'"),
        (([1.0],) * 3, {"mode": "quantiles"}, InvalidValueError, "did you mean 'quantile'"),
        (([1.0],) * 3, {"mode": "quantile"}, InvalidValueError, "needs importance="),
    ],
)
def test_what_cannot_be_clustered_is_named(arguments, options, error, text):
    with pytest.raises(error, match=text):
        quick().fit(*arguments, layer_name="fc", **options)


def test_wrong_options_are_named():
    with pytest.raises(InvalidValueError, match="did you mean 'greedy'"):
        MetricSpaceClustering(type_mapping="gredy")
    with pytest.raises(InvalidValueError, match="n_clusters is 0"):
        MetricSpaceClustering(n_clusters=0)
    with pytest.raises(InvalidValueError, match="shuffles is -1"):
        MetricSpaceClustering(shuffles=-1)
    with pytest.raises(InvalidValueError, match=r"there is no type 'critcal'.*'critical'"):
        quick().fit([1.0], [1.0], [1.0]).channels_of("critcal")
