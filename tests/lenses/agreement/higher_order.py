"""The lenses on all channels at once beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import SYNERGY, Entry, of_outputs
from tests.oracles import higher_order as oracle

ENTRIES = [
    Entry("total_correlation", of_outputs(oracle.gains, oracle.total)),
    Entry("dual_total_correlation", of_outputs(oracle.gains, oracle.dual)),
    Entry("o_information", of_outputs(oracle.gains, oracle.o_information), near_zero=SYNERGY),
]
