"""The class-conditional lenses, and information about targets, beside their oracles."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.lenses.agreement.entry import INFORMATION, Entry, with_targets
from tests.oracles import classes
from tests.oracles.capture import Array, Captured
from tests.oracles.rows import patches, pixels, row_targets

# One minus a ratio, and informations with a bias taken out: differences of numbers of about 1.
DIFFERENCE = 1e-6


def _of_classes(lens: str, function: Any, near_zero: float = 0.0, **options: Any) -> Entry:
    return Entry(lens, with_targets(function), options, "classes", near_zero)


def _within_classes(captured: Captured) -> Array:
    component = classes.first_component(patches(captured))
    return classes.information_within_classes(
        pixels(captured.outputs), row_targets(captured), component
    )


def _beside_component(captured: Captured) -> Array:
    return classes.conditional_information(
        pixels(captured.outputs),
        row_targets(captured),
        classes.first_component(patches(captured)),
    )


def _beside_column(rows: Array, targets: Array) -> Array:
    return classes.conditional_information(rows, targets[:, :1], targets[:, 1:])


ENTRIES = [
    _of_classes("mi_about_class", classes.class_information, DIFFERENCE),
    _of_classes("conditional_activation_norm", lambda y, t: classes.class_rms(y, t).mean(0)),
    _of_classes(
        "conditional_activation_norm",
        lambda y, t: classes.class_rms(y, t).max(0),
        aggregate="max",
    ),
    _of_classes(
        "conditional_activation_norm",
        lambda y, t: classes.class_rms(y, t).var(0, ddof=1),
        INFORMATION,
        aggregate="variance",
    ),
    _of_classes("conditional_activation_norm", classes.norm_ratio, aggregate="ratio"),
    _of_classes("class_selectivity", classes.selectivity, DIFFERENCE),
    _of_classes("class_selectivity", classes.tuning_variance, DIFFERENCE, mode="variance"),
    _of_classes("class_selectivity", classes.tuning_entropy, DIFFERENCE, mode="entropy"),
    _of_classes("class_selectivity", classes.tuning_gini, DIFFERENCE, mode="gini"),
    _of_classes("classification_alignment", classes.fisher, INFORMATION),
    _of_classes(
        "classification_alignment",
        classes.boundary_distance,
        DIFFERENCE,
        mode="boundary_distance",
    ),
    _of_classes("representation_quality", classes.left_out_class_quality, DIFFERENCE),
    Entry(
        "representation_quality",
        with_targets(partial(classes.left_out_number_quality, penalty=3.0)),
        {"targets": "numbers", "penalty": 3.0},
        "vectors",
        DIFFERENCE,
    ),
    Entry("conditional_mi", _within_classes, targets="classes", near_zero=DIFFERENCE),
    Entry("conditional_mutual_information", _beside_component, near_zero=INFORMATION),
    Entry(
        "conditional_mutual_information",
        with_targets(_beside_column),
        {"given": (1,)},
        "vectors",
        INFORMATION,
    ),
    Entry("mutual_information_binning", with_targets(classes.binned_information), near_zero=1e-12),
    Entry(
        "mutual_information_binning",
        with_targets(partial(classes.binned_information, bins=4, strategy="uniform")),
        {"bins": 4, "strategy": "uniform"},
        near_zero=1e-12,
    ),
]
