"""The alignment lenses beside their oracles."""

from __future__ import annotations

from typing import Any

from tests.lenses.agreement.entry import Entry
from tests.oracles import alignment


def _rayleigh(**options: Any) -> Entry:
    return Entry("rayleigh_quotient", lambda c: alignment.rayleigh_quotient(c, **options), options)


ENTRIES = [
    _rayleigh(),
    _rayleigh(relative=False),
    _rayleigh(regularization=0.5),
    _rayleigh(relative=False, regularization=0.0),
    _rayleigh(spatial="patchwise"),
    _rayleigh(spatial="patchwise", relative=False),
    _rayleigh(spatial="pixels"),
    _rayleigh(spatial="pixels", relative=False),
    _rayleigh(spatial="gap", regularization=0.01),
]
