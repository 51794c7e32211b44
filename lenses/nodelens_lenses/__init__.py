"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    activation,
    alignment,
    gradient,
    higher_order,
    information,
    pid,
    redundancy,
    scar,
    silencing,
    spectrum,
    synergy,
    weights,
)

__all__ = [
    "activation",
    "alignment",
    "gradient",
    "higher_order",
    "information",
    "pid",
    "redundancy",
    "scar",
    "silencing",
    "spectrum",
    "synergy",
    "weights",
]
