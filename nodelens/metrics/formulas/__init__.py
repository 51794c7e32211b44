"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from nodelens.metrics.formulas.across import (
    minmax,
    uniformity,
)
from nodelens.metrics.formulas.alignment import (
    rayleigh_quotient,
    row_correlation,
)
from nodelens.metrics.formulas.basics import (
    correlation,
    gaussian_information,
    ratio,
)
from nodelens.metrics.formulas.information import (
    explained_variance,
)
from nodelens.metrics.formulas.pairs import (
    clamped_pairs,
    mean_partner,
    pair_synergy,
    pair_synergy_of_classes,
)
from nodelens.metrics.formulas.partners import (
    drawn_partners,
    nearest_partners,
)

__all__ = [
    "clamped_pairs",
    "correlation",
    "drawn_partners",
    "explained_variance",
    "gaussian_information",
    "mean_partner",
    "minmax",
    "nearest_partners",
    "pair_synergy",
    "pair_synergy_of_classes",
    "ratio",
    "rayleigh_quotient",
    "row_correlation",
    "uniformity",
]
