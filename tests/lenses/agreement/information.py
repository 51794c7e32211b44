"""The information lenses beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import INFORMATION, Entry, with_targets
from tests.oracles import information
from tests.oracles.rows import patches, pixels

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
]
