"""The gradient lenses beside their oracles."""

from __future__ import annotations

from typing import Any

from tests.lenses.agreement.entry import CORRELATION, PRODUCT, Entry
from tests.oracles import gradient
from tests.oracles.capture import Array, Captured


def _taylor(**options: Any) -> Entry:
    def oracle(captured: Captured) -> Array:
        return gradient.taylor(captured.outputs, captured.gradients, **options)

    near_zero = PRODUCT if options["mode"] == "mean_abs" else 0.0
    return Entry("taylor_saliency", oracle, options, near_zero=near_zero)


def _aligned(rule: str) -> Entry:
    def oracle(captured: Captured) -> Array:
        return gradient.gradient_alignment(captured, rule)

    return Entry("gradient_alignment", oracle, {"rule": rule}, near_zero=CORRELATION)


ENTRIES = [
    *(_taylor(mode=mode) for mode in ("abs_mean", "mean_abs", "sq_mean")),
    *(_taylor(mode=mode, spatial="sum") for mode in ("abs_mean", "mean_abs", "sq_mean")),
    Entry("fisher", gradient.fisher),
    *(_aligned(rule) for rule in ("hebbian", "anti_hebbian", "oja", "input")),
]
