"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    across,
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
    "across",
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
