"""Every lens beside the oracle that says what it should give, by family."""

from tests.lenses.agreement import (
    across,
    activation,
    alignment,
    classes,
    composite,
    gradient,
    higher_order,
    information,
    pid,
    redundancy,
    spectrum,
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
    *classes.ENTRIES,
    *synergy.ENTRIES,
    *pid.ENTRIES,
    *higher_order.ENTRIES,
    *spectrum.ENTRIES,
    *gradient.ENTRIES,
    *weights.ENTRIES,
    *across.ENTRIES,
    *composite.ENTRIES,
]
