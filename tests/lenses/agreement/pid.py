"""The atoms of information about a target beside their oracles."""

from __future__ import annotations

from tests.lenses.agreement.entry import SYNERGY, Entry
from tests.oracles import pairs
from tests.oracles.capture import Array, Captured
from tests.oracles.rows import pixels, row_targets


def _atom(lens: str, atom: str) -> Entry:
    def oracle(captured: Captured) -> Array:
        return pairs.atoms(pixels(captured.outputs), row_targets(captured))[atom]

    return Entry(lens, oracle, near_zero=SYNERGY)


ENTRIES = [
    _atom("pid_shared", "shared"),
    _atom("pid_unique_x", "unique_x"),
    _atom("pid_unique_y", "unique_y"),
    _atom("pid_synergy", "synergy"),
    _atom("interaction_information", "interaction"),
]
