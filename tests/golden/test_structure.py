"""The reference system's clusters and halos, where it is right: same inputs, same answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodelens.analysis.clustering import CrossLayerHaloAnalysis, MetricSpaceClustering

FILE = Path(__file__).parent / "data" / "structure_values.npz"
TYPES = ("critical", "redundant", "synergistic", "background")
PERCENTILE = 80.0
"""The file does not say which: two of ten targets in each halo are those at or above the 80th."""


@cache
def values() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(FILE, allow_pickle=False) as loaded:
        return dict(loaded)


def test_the_same_channels_are_in_the_same_clusters_of_the_same_types():
    given = [values()[f"clustering/inputs|{name}"] for name in ("rq", "red", "syn")]
    found = MetricSpaceClustering(n_clusters=4, seed=42).fit(*given, layer_name="conv1")
    start = "clustering/sklearn/greedy/all/geometric|"
    their_types = values()[start + "types"][values()[start + "labels"]]
    assert found.channel_types == list(their_types)
    assert found.silhouette == pytest.approx(values()[start + "silhouette"], rel=1e-4)
    by_type = dict(zip(values()[start + "types"], values()[start + "centroids"], strict=True))
    for number, name in found.type_mapping.items():
        np.testing.assert_allclose(found.centroids[number], by_type[name], rtol=1e-4)
    assert found.has_structure


def test_influence_halos_and_flow_are_the_same():
    halo = CrossLayerHaloAnalysis(percentile=PERCENTILE)
    inputs = {k.partition("|")[2]: v for k, v in values().items() if k.startswith("halo/inputs")}
    influence = halo.compute_influence(inputs["next_weights"], inputs["activations"])
    np.testing.assert_allclose(influence, values()["halo/influence|value"], rtol=1e-4)
    plain = CrossLayerHaloAnalysis(PERCENTILE, use_activation_weight=False)
    bare = plain.compute_influence(inputs["next_weights"], inputs["activations"])
    np.testing.assert_allclose(bare, values()["halo/influence|value_no_act"], rtol=1e-4)
    for number, name in enumerate(TYPES):
        members = np.flatnonzero(inputs["source_labels"] == number)
        indices, relative = halo.find_halo(influence, members)
        theirs = {
            k.partition("|")[2]: v for k, v in values().items() if k.startswith(f"halo/find/{name}")
        }
        assert indices.tolist() == theirs["halo_indices"].tolist()
        np.testing.assert_allclose(relative, theirs["relative_influence"], rtol=1e-4)
        said = halo.analyse_halo(indices, inputs["next_redundancy"], inputs["next_synergy"])
        assert said.redundancy == pytest.approx(theirs["red_mean"], rel=1e-4)
        assert said.synergy == pytest.approx(theirs["syn_mean"], rel=1e-4)
    flow = halo.cluster_flow(influence, inputs["source_labels"], inputs["target_labels"])
    np.testing.assert_allclose(flow, values()["halo/flow|matrix"], rtol=1e-4)
