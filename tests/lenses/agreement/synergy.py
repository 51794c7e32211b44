"""The synergy lenses beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import SYNERGY, Entry, with_targets
from tests.oracles import information

ENTRIES = [
    Entry("gaussian_pid_synergy_mmi", with_targets(information.synergy), near_zero=SYNERGY),
    Entry(
        "synergy_gaussian_mmi",
        with_targets(information.class_synergy),
        targets="classes",
        near_zero=SYNERGY,
    ),
]
