"""Figures of clusters and halos, read off the artists."""

from __future__ import annotations

import numpy as np
import pytest

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures import plot_cluster_flow, plot_clusters, plot_halo


def test_a_mark_for_every_channel_by_type():
    points = np.arange(12.0).reshape(4, 3)
    types = ["critical", "background", "critical", "redundant"]
    ax = plot_clusters(points, types, axes=(0, 2), p_value=0.5)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert drawn["critical (2)"] == [[0, 2], [6, 8]] and len(drawn) == 3
    assert "no structure" in ax.get_title() and "synergy" in ax.get_ylabel()
    assert plot_clusters(points, types, p_value=0.01).get_title() == ""
    with pytest.raises(ShapeError, match="3 types"):
        plot_clusters(points, types[:3])


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
