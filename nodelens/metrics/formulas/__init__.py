"""One home for each formula: finished scores from merged statistics, in float64, nats throughout.

Degenerate cases are part of each formula: a constant channel has no correlation with anything and
scores 0; nothing is divided by an epsilon.
"""

from nodelens.metrics.formulas.across import (
    uniformity,
)
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
from nodelens.metrics.formulas.dependence import (
    Dependence,
    determined_directions,
    independent_information,
)
from nodelens.metrics.formulas.information import (
    explained_variance,
    information_above_noise,
    information_bias,
    information_within_classes,
    left_out_quality,
    partial_moments,
)
from nodelens.metrics.formulas.normalise import (
    NORMALISATIONS,
    minmax,
    normalised,
    rank,
    zscore,
)
from nodelens.metrics.formulas.pairs import (
    clamped_pairs,
    drawn_clamped_pairs,
    mean_drawn_partner,
    mean_partner,
    pair_synergy,
    pair_synergy_of_classes,
)
from nodelens.metrics.formulas.partners import (
    drawn_partners,
    nearest_partners,
    partner_draws,
)
from nodelens.metrics.formulas.spectrum import (
    cluster_gap,
    cosines,
    normalised_spectrum,
    participation_ratio,
    spectral_entropy,
    spectral_overlap,
)
from nodelens.metrics.formulas.supernodes import (
    connectivity,
    core_dimensions,
    effective_dimension,
    information_with_core,
    protection,
    read_connectivity,
    redundancy_to_core,
    scar_conn,
    scar_prot,
    top_share,
    write_pattern,
)
from nodelens.metrics.formulas.weights import (
    spectral_gap,
    spectral_norm_ratio,
    stable_rank,
)

__all__ = [
    "NORMALISATIONS",
    "Dependence",
    "binned_information",
    "boundary_distance",
    "clamped_pairs",
    "class_information",
    "class_quotient",
    "class_spread",
    "class_tuning",
    "cluster_gap",
    "connectivity",
    "core_dimensions",
    "correlation",
    "cosines",
    "covariance_alignment",
    "determined_directions",
    "drawn_clamped_pairs",
    "drawn_partners",
    "effective_dimension",
    "explained_variance",
    "gaussian_information",
    "group_blocks",
    "group_total",
    "independent_information",
    "information_about",
    "information_above_noise",
    "information_bias",
    "information_with_core",
    "information_within_classes",
    "joined_bins",
    "left_out_class_quality",
    "left_out_quality",
    "log_variance_bias",
    "mean_drawn_partner",
    "mean_of_others",
    "mean_pair_information",
    "mean_partner",
    "mean_shared",
    "mean_synergy",
    "minmax",
    "nearest_partners",
    "norm_by_class",
    "normalised",
    "normalised_spectrum",
    "pair_information",
    "pair_synergy",
    "pair_synergy_of_classes",
    "partial_moments",
    "participation_ratio",
    "partner_draws",
    "pooled_classes",
    "preferred_class_index",
    "principal_cosine",
    "protection",
    "rank",
    "ratio",
    "rayleigh_quotient",
    "read_connectivity",
    "redundancy_to_core",
    "row_correlation",
    "scar_conn",
    "scar_prot",
    "scatter",
    "separation",
    "spectral_entropy",
    "spectral_gap",
    "spectral_norm_ratio",
    "spectral_overlap",
    "stable_rank",
    "target_correlation",
    "top_share",
    "total_squares",
    "uniformity",
    "write_pattern",
    "zscore",
]
