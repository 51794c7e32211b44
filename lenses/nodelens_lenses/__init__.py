"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    activation,
    alignment,
    directions,
    gradient,
    information,
    noise,
    redundancy,
    scar,
    silencing,
    synergy,
    weights,
)

__all__ = [
    "activation",
    "alignment",
    "directions",
    "gradient",
    "information",
    "noise",
    "redundancy",
    "scar",
    "silencing",
    "synergy",
    "weights",
]
