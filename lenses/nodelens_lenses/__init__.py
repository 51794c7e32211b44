"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    activation,
    alignment,
    attention,
    composite,
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
    "attention",
    "composite",
    "gradient",
    "information",
    "redundancy",
    "scar",
    "silencing",
    "synergy",
    "weights",
]
