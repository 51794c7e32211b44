"""Every lens beside the oracle that says what it should give, by family."""

from tests.lenses.agreement import (
    across,
    activation,
    alignment,
    gradient,
    information,
    redundancy,
    synergy,
    weights,
)
from tests.lenses.agreement.entry import Entry

__all__ = ["ENTRIES", "Entry"]

ENTRIES = [
    *activation.ENTRIES,
    *alignment.ENTRIES,
    *redundancy.ENTRIES,
    *information.ENTRIES,
    *synergy.ENTRIES,
    *gradient.ENTRIES,
    *weights.ENTRIES,
    *across.ENTRIES,
]
