"""What holds of every metric lens, one row each: units, bounds, a case on paper, what chance gives.

A lens without a row here fails tests/lenses/test_catalogue.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log
from typing import Any

from tests.oracles import chance

ROWS, CHANNELS, CLASSES = 16, 8, 3
"""Of the independent channels that `Chance` is about, and of the network of the other columns."""


@dataclass(frozen=True)
class Chance:
    """The mean score of independent channels, the options and the targets that it is true of."""

    mean: float
    targets: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One lens.

    `paper` names a test of a case worked out on paper, `plain` one of `compute` on tensors, and
    `oracle` one beside an oracle, "" where it is among the entries of agreement/. Channels `factor`
    times as large, whose readers take them so much smaller, change the score by `factor ** power`
    (None: by no power); `each` says that every channel may have a factor of its own. `chance` is
    what independence gives, "" where nothing depends on a second variable, or the test or the
    sentence that says it.
    """

    paper: str
    power: int | None = 0
    each: bool = True
    low: float = -inf
    high: float = inf
    chance: Chance | str = ""
    plain: str = "compute.test_tensors_give_what_their_module_gives"
    oracle: str = ""


_GIVEN = "agreement.test_a_lens_that_is_given_something_or_sketches_agrees_too"
_ACROSS: dict[str, Any] = {
    "plain": "across.test_plain_tensors_give_what_the_model_gives",
    "oracle": "across.test_a_lens_agrees_with_whole_rows",
}
_P_VALUES = "tests.analysis.test_halos.test_p_values_are_even_under_the_null"
_NULL = "tests.analysis.test_clustering.test_noise_is_reported_as_no_structure"
_HERE = "catalogue.test_a_case_on_paper"
_PAIR = chance.information(ROWS)
_LESS = chance.less_of_two(ROWS)
_BOTH = chance.information(ROWS, 2)
_CLASS = chance.information(ROWS, CLASSES - 1)
_SYNERGY = _BOTH - 2 * _PAIR + _LESS
_FEW = CHANNELS - 1
_SCALED = "parts are stretched to one range, so chance spans it as well"
_TIGHT = {"eps": 1e-12}


def _about(mean: float, **options: Any) -> Chance:
    return Chance(mean, "number", {**_TIGHT, **options})


def _pairs(mean: float, targets: str = "") -> Chance:
    return Chance(mean, targets, _TIGHT)


_QUOTIENT: dict[str, Any] = {"low": 0, "high": 1}
TABLE: dict[str, Row] = {
    # activation
    "activation_kurtosis": Row(
        "properties.test_two_values_have_the_lowest_kurtosis_there_is", low=-2
    ),
    **{
        name: Row("properties.test_units_that_never_vary_have_a_documented_score", power, low=0)
        for name, power in (
            ("activation_l2_norm", 1),
            ("activation_max", 1),
            ("activation_mean", 1),
            ("activation_variance", 2),
        )
    },
    "activation_sparsity": Row(
        "properties.test_units_that_never_vary_have_a_documented_score", **_QUOTIENT
    ),
    "activation_outlier_index": Row(_HERE, None, low=0, oracle=_GIVEN),
    # alignment
    "rayleigh_quotient": Row(
        "properties.test_white_inputs_give_every_unit_the_same_quotient", **_QUOTIENT
    ),
    "rq_patchwise": Row(_HERE, **_QUOTIENT),
    "rq_spatial": Row(_HERE, **_QUOTIENT),
    "rq_fast": Row(_HERE, **_QUOTIENT),
    "delta_alignment": Row(
        "compute.test_delta_alignment_takes_the_weights_from_before",
        **_QUOTIENT,
        plain="compute.test_delta_alignment_takes_the_weights_from_before",
        oracle=_GIVEN,
    ),
    "normalized_delta_alignment": Row(
        "alignment.test_a_change_twice_as_large_has_half_the_normalized_quotient",
        -1,
        low=0,
        plain="alignment.test_a_change_twice_as_large_has_half_the_normalized_quotient",
        oracle=_GIVEN,
    ),
    "conditional_rayleigh_quotient": Row(
        "alignment.test_classes_count_by_their_rows",
        **_QUOTIENT,
        chance="alignment.test_labels_that_say_nothing_give_no_difference_on_average",
    ),
    "delta_rq": Row(
        "alignment.test_a_single_class_takes_nothing_off",
        low=-1,
        high=1,
        chance="alignment.test_labels_that_say_nothing_give_no_difference_on_average",
    ),
    "weight_activation_alignment": Row(
        "alignment.test_a_unit_along_a_leading_direction_has_cosine_one_and_the_others_none",
        **_QUOTIENT,
    ),
    "spectral_alignment": Row(
        "alignment.test_a_direction_scores_its_share_of_all_variances", **_QUOTIENT
    ),
    # information
    "gaussian_mi_analytic": Row(
        "noise.test_a_value_as_wide_as_the_noise_says_half_of_log_two", None, low=0
    ),
    "mi_fast": Row("noise.test_what_averages_out_over_a_map_says_nothing_pooled", None, low=0),
    "mutual_information_gaussian": Row(
        "closed_forms.test_a_planted_correlation_gives_its_gaussian_information",
        low=0,
        chance=_about(_PAIR),
    ),
    "mutual_information_binning": Row(
        "classes.test_binning_sees_what_no_correlation_does",
        chance="classes.test_binning_of_independent_targets_is_about_zero",
    ),
    "conditional_mutual_information": Row(
        "classes.test_a_chain_of_causes_tells_nothing_beyond_its_middle",
        low=0,
        chance=Chance(chance.information(ROWS - 1), "numbers", {**_TIGHT, "given": 1}),
    ),
    "conditional_mi": Row(
        "classes.test_what_the_class_explains_is_no_information_within_it",
        chance=Chance(0.0, "class and number", {"reference": "targets"}),
    ),
    "mi_about_class": Row(
        "classes.test_a_class_that_moves_the_mean_or_the_spread_has_its_information",
        chance=Chance(0.0, "class"),
    ),
    # redundancy
    "average_redundancy": Row(
        "closed_forms.test_redundancy_is_the_mean_information_with_the_others",
        low=0,
        chance=_pairs(_PAIR),
    ),
    "pairwise_redundancy_gaussian": Row(
        "closed_forms.test_the_matrix_of_pairs_is_symmetric_and_its_rows_give_the_score",
        low=0,
        chance=_pairs(_PAIR),
    ),
    "layer_redundancy": Row(_HERE, low=0, chance=_pairs(_PAIR)),
    "node_redundancy": Row(
        "pairs.test_input_features_have_a_score_each_within_bounds",
        **_QUOTIENT,
        chance=Chance(chance.size_of_correlation(ROWS)),
    ),
    # synergy
    "gaussian_pid_synergy_mmi": Row(
        "closed_forms.test_noise_that_only_a_partner_knows_is_synergy",
        low=0,
        chance=_about(_SYNERGY),
    ),
    "synergy_gaussian_mmi": Row(
        "closed_forms.test_noise_that_only_a_partner_knows_is_synergy_about_a_class_too",
        low=0,
        chance=_pairs(
            chance.together(ROWS, CLASSES) - 2 * _CLASS + chance.less_of_two(ROWS, CLASSES - 1),
            "class",
        ),
    ),
    "synergy_continuous_target": Row(
        "logit_targets.test_targets_that_are_shuffled_tell_nothing_and_the_true_ones_do",
        low=0,
        chance=_about(_SYNERGY, partners="all"),
        plain="logit_targets.test_plain_numbers_give_what_the_model_gives",
        oracle="logit_targets.test_lenses_agree_with_whole_rows",
    ),
    "pid_shared": Row("pairs.test_copies_share_all_and_add_nothing", low=0, chance=_about(_LESS)),
    "pid_unique_x": Row(
        "pairs.test_a_silent_channel_leaves_all_to_its_partner",
        low=0,
        chance=_about(_PAIR - _LESS),
    ),
    "pid_unique_y": Row(
        "pairs.test_a_silent_channel_leaves_all_to_its_partner",
        low=0,
        chance=_about(_PAIR - _LESS),
    ),
    "pid_synergy": Row(
        "pairs.test_a_sum_of_two_channels_is_known_by_both_together",
        low=0,
        chance=_about(_SYNERGY),
    ),
    "interaction_information": Row(
        "pairs.test_copies_share_all_and_add_nothing", chance=_about(_BOTH - 2 * _PAIR)
    ),
    "total_correlation": Row(
        "higher_order.test_equally_correlated_channels_have_the_known_measures",
        low=0,
        chance=_pairs(chance.information(ROWS, _FEW)),
    ),
    "dual_total_correlation": Row(
        "higher_order.test_equally_correlated_channels_have_the_known_measures",
        low=0,
        chance=_pairs(chance.dual(ROWS, CHANNELS) - chance.dual(ROWS, _FEW)),
    ),
    "o_information": Row(
        "higher_order.test_redundancy_and_synergy_have_opposite_signs",
        chance=_pairs(
            chance.information(ROWS, _FEW) - chance.dual(ROWS, CHANNELS) + chance.dual(ROWS, _FEW)
        ),
    ),
    # gradient
    "taylor_saliency": Row(
        "properties.test_a_loss_that_is_the_sum_of_outputs_makes_taylor_the_mean_size", low=0
    ),
    "gradient_alignment": Row(
        "properties.test_descent_that_is_hebbs_rule_aligns_with_it", **_QUOTIENT
    ),
    "fisher": Row("fisher.test_a_unit_the_loss_does_not_feel_scores_nothing", -2, low=0),
    **{
        name: Row(
            "language_models.test_scar_scores_on_paper",
            power,
            low=0,
            plain="compute.test_units_of_a_block_score_as_on_the_model",
            oracle="language_models.test_scar_scores_of_a_language_model_agree_with_the_oracle",
        )
        for name, power in (
            ("scar_activation_power", 2),
            ("scar_taylor", 0),
            ("scar_curvature", -2),
            ("scar_loss_proxy", 0),
            ("scar_loss_proxy_factored", 0),
        )
    },
    **{
        name: Row(
            "attention.test_heads_of_ones_own_attention_are_said",
            power,
            each=False,
            low=0,
            plain="attention.test_plain_tensors_are_cut_as_they_are_told",
            oracle="attention.test_heads_agree_with_the_oracle",
        )
        for name, power in (
            ("attn_activation_power", 2),
            ("attn_gradient_power", -2),
            ("attn_taylor", 0),
            ("attn_loss_proxy", 0),
        )
    },
    # classes
    "conditional_activation_norm": Row(
        "classes.test_norms_of_classes_are_relative_to_that_of_all_rows",
        low=0,
        chance="catalogue.test_classes_that_are_like_all_rows_have_their_norm",
    ),
    "class_selectivity": Row(
        "classes.test_one_class_alone_is_full_selectivity_and_equal_classes_are_none",
        **_QUOTIENT,
        chance="classes.test_shuffled_labels_leave_a_response_unselective",
    ),
    "classification_alignment": Row(
        "classes.test_two_classes_are_half_of_d_prime_from_their_boundary",
        low=0,
        chance=Chance((CLASSES - 1) / (ROWS - CLASSES - 2), "class"),
    ),
    "representation_quality": Row(
        "classes.test_the_quality_of_a_probe_is_what_it_explains_and_no_more_for_noise",
        high=1,
        chance="classes.test_the_quality_of_a_probe_is_what_it_explains_and_no_more_for_noise",
    ),
    # weights
    "weight_magnitude": Row(_HERE, 1, low=0),
    "weight_cosine_similarity": Row(
        "weights.test_identical_rows_are_wholly_similar_and_orthogonal_ones_not_at_all",
        low=-1,
        high=1,
    ),
    "spectral_gap": Row("weights.test_planted_singular_values", each=False, **_QUOTIENT),
    "spectral_norm_ratio": Row("weights.test_planted_singular_values", each=False, **_QUOTIENT),
    "stable_rank": Row("weights.test_planted_singular_values", each=False, low=0, high=CHANNELS),
    "bn_scale": Row(
        "weights.test_the_scale_of_the_norm_behind_a_layer_is_its_score",
        1,
        low=0,
        plain="weights.test_layers_without_a_norm_are_left_out_and_refused_by_name",
        oracle="weights.test_norms_are_found_by_the_order_of_the_pass",
    ),
    # spectrum
    "activation_cosine_similarity": Row(
        "spectrum.test_cosines_are_of_the_activations_as_they_are",
        low=-1,
        high=1,
        chance=Chance(0.0),
    ),
    "eigenvalue_entropy": Row(
        "spectrum.test_white_channels_vary_in_all_directions_alike",
        each=False,
        low=0,
        high=log(CHANNELS),
    ),
    "participation_ratio": Row(
        "spectrum.test_white_channels_vary_in_all_directions_alike",
        each=False,
        low=0,
        high=CHANNELS,
    ),
    "eigenvalue_alignment": Row(
        "spectrum.test_a_layer_s_own_covariance_overlaps_wholly_at_any_scale",
        each=False,
        **_QUOTIENT,
        plain="spectrum.test_a_missing_or_wrong_reference_is_named",
        oracle=_GIVEN,
    ),
    "spectral_clustering_score": Row(
        "spectrum.test_groups_of_copies_have_the_gap_of_complete_graphs", low=0, high=2
    ),
    # across layers
    "cross_layer_redundancy": Row(
        "across.test_what_the_next_layer_repeats_is_found_and_what_it_drops_is_not",
        low=0,
        chance=_pairs(_PAIR),
        **_ACROSS,
    ),
    "layer_transition_efficiency": Row(_HERE, low=0, **_ACROSS),
    "within_layer_importance": Row(_HERE, each=False, low=-0.4, high=0.6),
    "cross_layer_importance": Row(_HERE, each=False, low=-0.25, high=0.75, **_ACROSS),
    "adaptive_importance": Row(
        "across.test_the_next_layer_counts_only_where_channels_are_of_unlike_size",
        each=False,
        low=-0.25,
        high=0.75,
        **_ACROSS,
    ),
    # composite
    "composite_importance": Row("composite.test_a_sum_on_paper", low=-1, high=2, chance=_SCALED),
    "alignment_minus_redundancy": Row(_HERE, low=-1, high=1),
    "class_informative_score": Row(_HERE, low=0, high=2, chance=_SCALED),
    # clusters
    "metric_space_clustering": Row(
        "clusters.test_types_are_those_of_the_parts_own_scores",
        low=0,
        high=3,
        chance=_NULL,
        oracle="clusters.test_types_are_those_of_the_parts_own_scores",
    ),
    "cross_layer_halo": Row(
        "clusters.test_a_halo_is_the_share_of_what_arrives_from_the_type",
        **_QUOTIENT,
        chance=_P_VALUES,
        plain="clusters.test_a_halo_on_plain_tensors_is_refused_with_what_to_call",
        oracle="clusters.test_a_halo_is_the_share_of_what_arrives_from_the_type",
    ),
}
