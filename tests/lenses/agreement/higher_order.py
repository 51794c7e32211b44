"""The lenses on all channels at once beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import Entry, of_outputs
from tests.oracles import higher_order as oracle

# A difference of informations of ten nats, each good to 1e-6: deviations are rounded to float32
# before their products are wide. A language model's layers differ from the oracle by 2e-6.
CANCELLED = 1e-5

ENTRIES = [
    Entry("total_correlation", of_outputs(oracle.gains, oracle.total)),
    Entry("dual_total_correlation", of_outputs(oracle.gains, oracle.dual)),
    Entry("o_information", of_outputs(oracle.gains, oracle.o_information), near_zero=CANCELLED),
]
