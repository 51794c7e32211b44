"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from nodelens.metrics.formulas.alignment import (
    rayleigh_quotient,
    row_correlation,
)
from nodelens.metrics.formulas.basics import (
    correlation,
    gaussian_information,
    ratio,
)
from nodelens.metrics.formulas.binned import (
    binned_information,
    joined_bins,
)
from nodelens.metrics.formulas.classes import (
    boundary_distance,
    class_information,
    class_spread,
    class_tuning,
    left_out_class_quality,
    log_variance_bias,
    norm_by_class,
    pooled_classes,
    preferred_class_index,
    scatter,
    separation,
)
from nodelens.metrics.formulas.information import (
    explained_variance,
    information_bias,
    information_within_classes,
    left_out_quality,
    partial_moments,
)
from nodelens.metrics.formulas.normalise import (
    NORMALISATIONS,
    normalised,
)
from nodelens.metrics.formulas.pairs import (
    clamped_pairs,
    mean_partner,
    pair_synergy,
    pair_synergy_of_classes,
)

__all__ = [
    "NORMALISATIONS",
    "binned_information",
    "boundary_distance",
    "clamped_pairs",
    "class_information",
    "class_spread",
    "class_tuning",
    "correlation",
    "explained_variance",
    "gaussian_information",
    "information_bias",
    "information_within_classes",
    "joined_bins",
    "left_out_class_quality",
    "left_out_quality",
    "log_variance_bias",
    "mean_partner",
    "norm_by_class",
    "normalised",
    "pair_synergy",
    "pair_synergy_of_classes",
    "partial_moments",
    "pooled_classes",
    "preferred_class_index",
    "ratio",
    "rayleigh_quotient",
    "row_correlation",
    "scatter",
    "separation",
]
