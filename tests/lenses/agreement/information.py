"""The information lenses beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import INFORMATION, Entry, of_outputs, with_targets
from tests.oracles import information
from tests.oracles.rows import patches, pixels, pooled

ENTRIES = [
    Entry(
        "mutual_information_gaussian",
        with_targets(information.about_targets),
        near_zero=INFORMATION,
    ),
    Entry(
        "mutual_information_gaussian",
        lambda c: information.about_first_component(pixels(c.outputs), patches(c)),
        {"reference": "pc1"},
        near_zero=INFORMATION,
    ),
    Entry("gaussian_mi_analytic", of_outputs(information.above_noise, 0.1)),
    Entry("gaussian_mi_analytic", of_outputs(information.above_noise, 2.0), {"noise_std": 2.0}),
    Entry("mi_fast", lambda c: information.above_noise(pooled(c.outputs), 0.1)),
]
