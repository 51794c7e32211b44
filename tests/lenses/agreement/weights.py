"""The weights lenses beside their oracles."""

from __future__ import annotations

import numpy as np

from tests.lenses.agreement.entry import Entry
from tests.oracles import weights

ENTRIES = [
    Entry("weight_magnitude", lambda c: np.linalg.norm(c.weight, axis=1)),
    Entry("weight_magnitude", lambda c: np.abs(c.weight).sum(1), {"norm": 1}),
    Entry("weight_cosine_similarity", weights.mean_cosine),
    Entry("weight_cosine_similarity", lambda c: weights.mean_cosine(c, True), {"absolute": True}),
    Entry("spectral_gap", weights.of_the_group(weights.gap)),
    Entry("spectral_norm_ratio", weights.of_the_group(weights.norm_ratio)),
    Entry("stable_rank", weights.of_the_group(weights.stable_rank)),
]
