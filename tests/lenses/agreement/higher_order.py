"""The lenses on all channels at once beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import Entry, of_outputs
from tests.oracles import higher_order as oracle

# Some layers here have more channels than inputs: along what is left over, a correlation matrix of
# float32 activations has 1e-7 instead of 0, beside a shrinkage of 1e-4; nine channels feel it.
SINGULAR = 2e-2

ENTRIES = [
    Entry("total_correlation", of_outputs(oracle.gains, oracle.total), near_zero=SINGULAR),
    Entry("dual_total_correlation", of_outputs(oracle.gains, oracle.dual), near_zero=SINGULAR),
    Entry("o_information", of_outputs(oracle.gains, oracle.o_information), near_zero=SINGULAR),
]
