"""The redundancy lenses beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import CORRELATION, INFORMATION, Entry, of_inputs, of_outputs
from tests.oracles import information, pairs
from tests.oracles.capture import Array


def _all_pairs(rows: Array) -> Array:
    return information.mean_over_others(information.pairwise(rows))


ENTRIES = [
    Entry("average_redundancy", of_outputs(_all_pairs), near_zero=INFORMATION),
    Entry("average_redundancy", of_inputs(_all_pairs), {"site": "input"}, near_zero=INFORMATION),
    Entry("pairwise_redundancy_gaussian", of_outputs(_all_pairs), near_zero=INFORMATION),
    Entry("layer_redundancy", of_outputs(pairs.layer_mean), near_zero=INFORMATION),
    Entry("node_redundancy", of_inputs(pairs.mean_size_of_correlation), near_zero=CORRELATION),
    Entry(
        "pairwise_redundancy_gaussian",
        of_outputs(information.nearest_partners, 2),
        {"partners": "nearest", "k": 2},
        near_zero=INFORMATION,
    ),
]
