"""Figures of clusters and halos, read off the artists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens.analysis.clustering import (
    ClusterResult,
    CrossLayerHaloAnalysis,
    StructureTest,
)
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures import (
    plot_cluster_flow,
    plot_clusters,
    plot_clusters_3d,
    plot_halo,
    plot_halo_properties,
    plot_influence,
    plot_type_shares,
)
from tests.figures.drawn import new_axes, texts
from tests.figures.drawn import points as points_of


def said(ax) -> str:
    return ax.get_legend().get_title().get_text()


def test_a_mark_for_every_channel_by_type():
    points = np.arange(12.0).reshape(4, 3)
    types = ["critical", "background", "critical", "redundant"]
    ax = plot_clusters(points, types, axes=(0, 2), p_value=0.5)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert drawn["critical (2)"] == [[0, 2], [6, 8]] and len(drawn) == 3
    assert "no structure" in said(ax) and "synergy" in ax.get_ylabel()
    assert said(plot_clusters(points, types, p_value=0.01)) == ""
    with pytest.raises(ShapeError, match="3 types"):
        plot_clusters(points, types[:3])
    with pytest.raises(InvalidValueError, match="did you mean 'critical'"):
        plot_clusters(points, [*types[:3], "critcal"])


def clusters() -> ClusterResult:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 3)))
    return ClusterResult(
        layer_name="fc1",
        labels=torch.arange(40) % 3,
        centroids=points[:3],
        points=points,
        silhouette=0.1,
        cluster_types=("critical", "background", "redundant"),
        features=("log_rq", "redundancy", "synergy"),
        mode="geometric",
        structure=StructureTest(0.5, 0.5, 0.1, 0.25, 3, "correlated"),
    )


def test_a_result_of_clustering_is_drawn_as_its_points_and_types():
    found = clusters()
    drawn = points_of(plot_clusters(found))
    assert {label: len(xy) for label, xy in drawn.items()} == {
        f"{name} ({n})": n for name, n in found.counts.items()
    }
    everywhere = np.array(sorted(xy for line in drawn.values() for xy in line))
    assert np.allclose(everywhere, sorted(found.points[:, :2].tolist()))
    assert "no structure" in said(plot_clusters(found)), "p is a quarter"


def test_clusters_in_space_have_their_three_features():
    found = clusters()
    ax = plot_clusters_3d(found)
    marks = np.concatenate([np.array(line.get_data_3d()).T for line in ax.get_lines()]).tolist()
    assert np.allclose(sorted(marks), sorted(found.points.tolist()))
    labels = (ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel())
    assert labels == ("log Rayleigh quotient", "redundancy", "synergy")
    given = new_axes().figure.add_subplot(projection="3d")
    assert plot_clusters_3d(found, ax=given) is given
    with pytest.raises(InvalidValueError, match="flat"):
        plot_clusters_3d(found, ax=new_axes())


def test_types_by_depth_are_shares_that_fill_each_bar():
    found = clusters()
    ax = plot_type_shares({"fc0": {"critical": 3, "background": 1}, "fc1": found, "fc2": []})
    shares = {bars.get_label(): [bar.get_height() for bar in bars] for bars in ax.containers}
    assert shares["critical"] == [0.75, found.counts["critical"] / 40, 0]
    assert shares["background"][0] == 0.25
    assert np.allclose(np.sum(list(shares.values()), 0), [1, 1, 0])
    assert np.isclose(ax.containers[-1][0].get_y(), 0.75), "each on the one before"
    assert sum(bool(patch.get_hatch()) for patch in ax.patches) == 1, "a layer of no channels"
    assert [t.get_text() for t in plot_type_shares([found]).get_xticklabels()] == ["fc1"]
    with pytest.raises(InvalidValueError, match=r"layer 'fc': a type is 'redudant' .did you mean"):
        plot_type_shares({"fc": ["redudant"]})


def test_influence_stands_type_by_type():
    influence = [[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]]
    kinds = ["background", "critical", "background"]
    ax = plot_influence(influence, source_types=kinds)
    shown = ax.images[0].get_array()
    assert np.array_equal(shown.filled(-1), [[2, 1, 3], [-1, 4, 6]])
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    assert ticks == ["critical (1)", "background (2)"]
    assert "1 of 6 values missing" in ax.get_xlabel()
    with pytest.raises(ShapeError, match="source_types are 2, expected 3"):
        plot_influence(influence, source_types=kinds[:2])
    with pytest.raises(InvalidValueError, match="value -1"):
        plot_influence([[-1.0]])


def test_halos_stand_beside_the_rest_of_their_layers():
    halo = CrossLayerHaloAnalysis()
    found = [
        halo.analyse_halo([0, 1], [1.0, 3.0, 5.0], None, layer_name="fc1", cluster_name="critical"),
        halo.analyse_halo([0], None, [1.0, 2.0], layer_name="fc2"),
    ]
    ax = plot_halo_properties(found)
    drawn = points_of(ax)
    assert drawn["halo"][0] == [2, 0] and drawn["rest of the layer"][0] == [5, 0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["fc1, critical (2)", "fc2, cluster (1)"]
    assert texts(ax) == ["no redundancy of both"] and ax.get_xlabel() == "mean redundancy (nats)"
    with pytest.raises(InvalidValueError, match="did you mean 'synergy'"):
        plot_halo_properties(found, measure="sinergy")


def test_flow_is_written_into_its_cells():
    ax = plot_cluster_flow([[0.25, 0.75]], ["critical"], ["critical", "redundant"])
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.75"]
    assert np.array_equal(ax.images[0].get_array(), [[0.25, 0.75]])
    with pytest.raises(ShapeError, match="expected"):
        plot_cluster_flow([[0.25, 0.75]], ["critical"], ["critical"])


def test_the_halo_is_marked_among_all_from_high_to_low():
    ax = plot_halo([0.1, 0.7, 0.3], [1], expected=0.2, source="critical channels")
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert list(drawn["halo (1)"]) == [0.7] and list(drawn["others (2)"]) == [0.3, 0.1]
    assert list(drawn["at random"]) == [0.2, 0.2]
    with pytest.raises(InvalidValueError, match="one or more"):
        plot_halo([], [])
