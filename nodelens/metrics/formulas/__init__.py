"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from nodelens.metrics.formulas.alignment import (
    class_quotient,
    covariance_alignment,
    group_blocks,
    group_total,
    principal_cosine,
    rayleigh_quotient,
    row_correlation,
    total_squares,
)
from nodelens.metrics.formulas.basics import (
    correlation,
    gaussian_information,
    ratio,
)
from nodelens.metrics.formulas.information import (
    explained_variance,
    information_above_noise,
)
from nodelens.metrics.formulas.pairs import (
    clamped_pairs,
    mean_partner,
    pair_synergy,
    pair_synergy_of_classes,
)
from nodelens.metrics.formulas.weights import (
    spectral_gap,
    spectral_norm_ratio,
    stable_rank,
)

__all__ = [
    "clamped_pairs",
    "class_quotient",
    "correlation",
    "covariance_alignment",
    "explained_variance",
    "gaussian_information",
    "group_blocks",
    "group_total",
    "information_above_noise",
    "mean_partner",
    "pair_synergy",
    "pair_synergy_of_classes",
    "principal_cosine",
    "ratio",
    "rayleigh_quotient",
    "row_correlation",
    "spectral_gap",
    "spectral_norm_ratio",
    "stable_rank",
    "total_squares",
]
