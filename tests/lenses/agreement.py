"""Every lens beside the oracle that says what it should give, and how close float32 can come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nodelens import Lens
from tests.oracles import activation, alignment, gradient, information
from tests.oracles.capture import Array, Captured
from tests.oracles.rows import patches, pixels, row_targets

Oracle = Callable[[Captured], Array]

# Where a score may be near zero, 1e-5 of it is less than float32 activations can tell. A
# correlation of them is good to some 1e-7, taken here as 1e-6; rho^2 / 2, the information of a weak
# one, then to rho * 1e-6, which is below 1e-7 as long as 1e-5 relative is the smaller bound.
INFORMATION = 1e-7
# A difference of two informations of up to a nat, each good to 1e-5 relative at worst 1e-6.
SYNERGY = 1e-6
# Three is subtracted from what is good to 1e-5 of itself.
KURTOSIS = 3e-5
# A weight's update is a sum that cancels, good to 1e-6 of its largest terms; a row has few of them.
CORRELATION = 5e-6
# Means of values of about 1 (activations) and 1e-2 (activation times gradient) that cancel.
MEAN = 1e-6
PRODUCT = 1e-8


@dataclass(frozen=True)
class Entry:
    """A lens with options, its oracle, and the kind of targets that it makes sense for."""

    lens: str
    oracle: Oracle
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: str = "any"
    near_zero: float = 0.0

    def __str__(self) -> str:
        return " ".join([self.lens, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self) -> Lens:
        return Lens.from_name(self.lens, **self.options)

    def fits(self, targets: str) -> bool:
        return self.targets in ("any", targets)


def _of_outputs(function: Callable[..., Array], *args: Any) -> Oracle:
    return lambda captured: function(pixels(captured.outputs), *args)


def _of_inputs(function: Callable[..., Array], *args: Any) -> Oracle:
    return lambda captured: function(pixels(captured.inputs), *args)


def _with_targets(function: Callable[..., Array]) -> Oracle:
    return lambda captured: function(pixels(captured.outputs), row_targets(captured))


def _rayleigh(**options: Any) -> Entry:
    return Entry("rayleigh_quotient", lambda c: alignment.rayleigh_quotient(c, **options), options)


def _taylor(**options: Any) -> Entry:
    def oracle(captured: Captured) -> Array:
        return gradient.taylor(captured.outputs, captured.gradients, **options)

    near_zero = PRODUCT if options["mode"] == "mean_abs" else 0.0
    return Entry("taylor_saliency", oracle, options, near_zero=near_zero)


def _aligned(rule: str) -> Entry:
    def oracle(captured: Captured) -> Array:
        return gradient.gradient_alignment(captured, rule)

    return Entry("gradient_alignment", oracle, {"rule": rule}, near_zero=CORRELATION)


def _all_pairs(rows: Array) -> Array:
    return information.mean_over_others(information.pairwise(rows))


ENTRIES = [
    Entry("activation_mean", _of_outputs(activation.mean_size)),
    Entry("activation_mean", _of_outputs(activation.mean), {"absolute": False}, near_zero=MEAN),
    Entry("activation_variance", _of_outputs(activation.variance)),
    Entry("activation_variance", _of_inputs(activation.variance), {"site": "input"}),
    Entry("activation_l2_norm", _of_outputs(activation.root_mean_square)),
    Entry("activation_max", _of_outputs(activation.largest_size)),
    Entry("activation_sparsity", _of_inputs(activation.near_zero, 0.0), {"site": "input"}),
    Entry("activation_sparsity", _of_outputs(activation.near_zero, 0.1), {"eps": 0.1}),
    Entry("activation_kurtosis", _of_outputs(activation.excess_kurtosis), near_zero=KURTOSIS),
    _rayleigh(),
    _rayleigh(relative=False),
    _rayleigh(regularization=0.5),
    _rayleigh(relative=False, regularization=0.0),
    _rayleigh(spatial="patchwise"),
    _rayleigh(spatial="patchwise", relative=False),
    _rayleigh(spatial="pixels"),
    _rayleigh(spatial="pixels", relative=False),
    _rayleigh(spatial="gap", regularization=0.01),
    Entry("average_redundancy", _of_outputs(_all_pairs), near_zero=INFORMATION),
    Entry("average_redundancy", _of_inputs(_all_pairs), {"site": "input"}, near_zero=INFORMATION),
    Entry("pairwise_redundancy_gaussian", _of_outputs(_all_pairs), near_zero=INFORMATION),
    Entry(
        "pairwise_redundancy_gaussian",
        _of_outputs(information.nearest_partners, 2),
        {"partners": "nearest", "k": 2},
        near_zero=INFORMATION,
    ),
    Entry(
        "mutual_information_gaussian",
        _with_targets(information.about_targets),
        near_zero=INFORMATION,
    ),
    Entry(
        "mutual_information_gaussian",
        lambda c: information.about_first_component(pixels(c.outputs), patches(c)),
        {"reference": "pc1"},
        near_zero=INFORMATION,
    ),
    Entry("gaussian_pid_synergy_mmi", _with_targets(information.synergy), near_zero=SYNERGY),
    Entry(
        "synergy_gaussian_mmi",
        _with_targets(information.class_synergy),
        targets="classes",
        near_zero=SYNERGY,
    ),
    *(_taylor(mode=mode) for mode in ("abs_mean", "mean_abs", "sq_mean")),
    *(_taylor(mode=mode, spatial="sum") for mode in ("abs_mean", "mean_abs", "sq_mean")),
    *(_aligned(rule) for rule in ("hebbian", "anti_hebbian", "oja", "input")),
    Entry("weight_magnitude", lambda c: np.linalg.norm(c.weight, axis=1)),
    Entry("weight_magnitude", lambda c: np.abs(c.weight).sum(1), {"norm": 1}),
]
