"""The built-in lenses, by family; importing the package registers them."""

from nodelens_lenses import (
    activation,
    alignment,
    attention,
    binning,
    classes,
    composite,
    gradient,
    information,
    redundancy,
    scar,
    silencing,
    synergy,
    target_information,
    weights,
)

__all__ = [
    "activation",
    "alignment",
    "attention",
    "binning",
    "classes",
    "composite",
    "gradient",
    "information",
    "redundancy",
    "scar",
    "silencing",
    "synergy",
    "target_information",
    "weights",
]
