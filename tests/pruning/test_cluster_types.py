"""`cluster_aware` takes its types from the clusters of the layer's own metrics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodelens import Lens
from nodelens.analysis.clustering import MetricSpaceClustering
from nodelens.errors import InvalidValueError
from nodelens.pruning import get_pruning_strategy
from nodelens.testing.subjects import SUBJECTS

ROLES = {
    "rq": "rayleigh_quotient",
    "redundancy": "average_redundancy",
    "synergy": "gaussian_pid_synergy_mmi",
}
# Blobs of one, five, two and four: quarters would put three of each kind.
BLOBS = torch.tensor([0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3])
CENTRES = torch.tensor([[9.0, 0.0, 0.0], [1.0, 5.0, 0.0], [1.0, 0.0, 5.0], [1.0, 0.0, 0.0]])


def planted() -> dict[str, dict[str, torch.Tensor]]:
    jitter = torch.arange(12)[:, None] * torch.tensor([0.003, 0.002, 0.001])
    return {role: {"0": (CENTRES[BLOBS] + jitter)[:, i]} for i, role in enumerate(ROLES)}


def test_what_is_redundant_by_its_cluster_goes_first():
    model, strategy = nn.Sequential(nn.Linear(3, 12)), "cluster_aware"
    made = get_pruning_strategy(strategy, given=planted(), protect=0.0)
    mask = made.masks(model, made.scores(model, layers="0"), 5 / 12)["0"]
    assert mask.tolist() == (BLOBS != 1).tolist()
    # Other kinds take other channels first, so that the clusters were what said it.
    other = {"0": ["background"] * 8 + ["redundant"] * 4}
    made = get_pruning_strategy(strategy, given=planted(), protect=0.0, types=other)
    assert made.masks(model, made.scores(model, layers="0"), 4 / 12)["0"].tolist() == [
        *[True] * 8,
        *[False] * 4,
    ]


def test_a_model_and_batches_are_enough():
    subject = SUBJECTS[0]
    model, batch = subject.model(), subject.batch(20)
    plain = {"protect": 0.0}
    found = get_pruning_strategy("cluster_aware", **plain).scores(model, [batch])
    flat = get_pruning_strategy("cluster_aware", redundant_first=False, **plain)
    assert found.keys() == (untiered := flat.scores(model, [batch])).keys()
    names = list(found)
    by_role = [
        Lens.from_name(lens, layers=names).run(model, [batch], progress=False).scores(lens)
        for lens in ROLES.values()
    ]
    for name in names:
        result = MetricSpaceClustering(4, 0, shuffles=0).fit(*(scores[name] for scores in by_role))
        redundant = torch.tensor([kind == "redundant" for kind in result.channel_types])
        assert torch.allclose(found[name], untiered[name] - 10 * redundant)
        assert redundant.any()


def test_clusters_that_cannot_be_are_refused():
    with pytest.raises(InvalidValueError, match=r"'cluster_aware'.*did you mean 'greedy'"):
        get_pruning_strategy("cluster_aware", type_mapping="gredy")
    with pytest.raises(InvalidValueError, match="n_clusters is 0"):
        get_pruning_strategy("cluster_aware", n_clusters=0)
    values = planted()
    values["rq"]["0"] = -values["rq"]["0"]
    with pytest.raises(InvalidValueError, match=r"'cluster_aware'.*layer '0'.*rq"):
        get_pruning_strategy("cluster_aware", given=values).scores(
            nn.Sequential(nn.Linear(3, 12)), layers="0"
        )
