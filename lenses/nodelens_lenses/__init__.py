"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    activation,
    alignment,
    gradient,
    information,
    redundancy,
    scar,
    silencing,
    synergy,
    weights,
)

__all__ = [
    "activation",
    "alignment",
    "gradient",
    "information",
    "redundancy",
    "scar",
    "silencing",
    "synergy",
    "weights",
]
