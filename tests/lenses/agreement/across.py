"""Of the lenses across layers the one that reads a single layer; the others: test_across.py."""

from __future__ import annotations

from tests.lenses.agreement.entry import INFORMATION, Entry
from tests.oracles import across

ENTRIES = [
    Entry("within_layer_importance", across.within_layer_importance, near_zero=10 * INFORMATION),
]
