"""The activation lenses beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import KURTOSIS, MEAN, Entry, of_inputs, of_outputs
from tests.oracles import activation

ENTRIES = [
    Entry("activation_mean", of_outputs(activation.mean_size)),
    Entry("activation_mean", of_outputs(activation.mean), {"absolute": False}, near_zero=MEAN),
    Entry("activation_variance", of_outputs(activation.variance)),
    Entry("activation_variance", of_inputs(activation.variance), {"site": "input"}),
    Entry("activation_l2_norm", of_outputs(activation.root_mean_square)),
    Entry("activation_max", of_outputs(activation.largest_size)),
    Entry("activation_sparsity", of_inputs(activation.near_zero, 0.0), {"site": "input"}),
    Entry("activation_sparsity", of_outputs(activation.near_zero, 0.1), {"eps": 0.1}),
    Entry("activation_kurtosis", of_outputs(activation.excess_kurtosis), near_zero=KURTOSIS),
]
