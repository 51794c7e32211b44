"""The weights lenses beside their oracles."""

from __future__ import annotations

import numpy as np

from tests.lenses.agreement.entry import Entry

ENTRIES = [
    Entry("weight_magnitude", lambda c: np.linalg.norm(c.weight, axis=1)),
    Entry("weight_magnitude", lambda c: np.abs(c.weight).sum(1), {"norm": 1}),
]
