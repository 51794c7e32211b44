"""The composite lenses beside their oracles, which are made of those of their parts."""

from __future__ import annotations

from typing import Any

from tests.lenses.agreement.entry import Entry
from tests.oracles import activation, alignment, classes, information
from tests.oracles.capture import Array, Captured
from tests.oracles.composite import weighted_sum
from tests.oracles.rows import pixels, row_targets

# A difference of two scores is stretched to 1, and with it how far float32 can tell them: where
# two channels score nearly the same by up to some hundred times.
STRETCHED = 3e-5


def _quotient(c: Captured) -> Array:
    return alignment.rayleigh_quotient(c)


def _redundancy(c: Captured) -> Array:
    return information.mean_over_others(information.pairwise(pixels(c.outputs)))


def _synergy(c: Captured) -> Array:
    return information.synergy(pixels(c.outputs), row_targets(c))


def _about_class(c: Captured) -> Array:
    return classes.class_information(pixels(c.outputs), row_targets(c))


def _selectivity(c: Captured) -> Array:
    return classes.selectivity(pixels(c.outputs), row_targets(c))


def _size(c: Captured) -> Array:
    return activation.mean_size(pixels(c.outputs))


def _entry(lens: str, *parts: tuple[float, Any], targets: str = "any", **options: Any) -> Entry:
    normalise = options.get("normalise", "minmax")

    def oracle(captured: Captured) -> Array:
        return weighted_sum([(weight, part(captured)) for weight, part in parts], normalise)

    return Entry(lens, oracle, options, targets, near_zero=STRETCHED)


_BOTH = ((1.0, _quotient), (-1.0, _redundancy))

ENTRIES = [
    _entry("composite_importance", *_BOTH, (1.0, _synergy)),
    _entry(
        "composite_importance",
        (2.0, _size),
        (-0.5, _quotient),
        weights={"activation_mean": 2.0, "rq": -0.5},
        normalise="zscore",
    ),
    _entry("alignment_minus_redundancy", *_BOTH),
    _entry("alignment_minus_redundancy", *_BOTH, normalise="rank"),
    _entry("class_informative_score", (1.0, _about_class), (1.0, _selectivity), targets="classes"),
]
