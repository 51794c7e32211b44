"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from nodelens.metrics.formulas.alignment import (
    rayleigh_quotient,
    row_correlation,
)
from nodelens.metrics.formulas.atoms import (
    information_about,
    mean_of_others,
    mean_pair_information,
    mean_shared,
    mean_synergy,
    pair_information,
    target_correlation,
)
from nodelens.metrics.formulas.basics import (
    correlation,
    gaussian_information,
    ratio,
)
from nodelens.metrics.formulas.dependence import (
    Dependence,
    determined_directions,
    independent_information,
)
from nodelens.metrics.formulas.information import (
    explained_variance,
)
from nodelens.metrics.formulas.pairs import (
    clamped_pairs,
    drawn_clamped_pairs,
    mean_drawn_partner,
    mean_partner,
    pair_synergy,
    pair_synergy_of_classes,
)
from nodelens.metrics.formulas.spectrum import (
    cluster_gap,
    cosines,
    normalised_spectrum,
    participation_ratio,
    spectral_entropy,
    spectral_overlap,
)

__all__ = [
    "Dependence",
    "clamped_pairs",
    "cluster_gap",
    "correlation",
    "cosines",
    "determined_directions",
    "drawn_clamped_pairs",
    "explained_variance",
    "gaussian_information",
    "independent_information",
    "information_about",
    "mean_drawn_partner",
    "mean_of_others",
    "mean_pair_information",
    "mean_partner",
    "mean_shared",
    "mean_synergy",
    "normalised_spectrum",
    "pair_information",
    "pair_synergy",
    "pair_synergy_of_classes",
    "participation_ratio",
    "ratio",
    "rayleigh_quotient",
    "row_correlation",
    "spectral_entropy",
    "spectral_overlap",
    "target_correlation",
]
