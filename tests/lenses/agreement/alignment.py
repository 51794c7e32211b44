"""The alignment lenses beside their oracles."""

from __future__ import annotations

from typing import Any

from tests.lenses.agreement.entry import QUOTIENT, Entry
from tests.oracles import alignment


def _rayleigh(**options: Any) -> Entry:
    return Entry("rayleigh_quotient", lambda c: alignment.rayleigh_quotient(c, **options), options)


def _named(name: str, spatial: str, **options: Any) -> Entry:
    return Entry(
        name, lambda c: alignment.rayleigh_quotient(c, spatial=spatial, **options), options
    )


def _of_classes(**options: Any) -> list[Entry]:
    return [
        Entry(
            "conditional_rayleigh_quotient",
            lambda c: alignment.conditional_quotient(c, **options),
            options,
            targets="classes",
        ),
        Entry(
            "delta_rq",
            lambda c: alignment.delta_quotient(c, **options),
            options,
            targets="classes",
            near_zero=QUOTIENT,
        ),
    ]


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
    _named("rq_patchwise", "patchwise"),
    _named("rq_spatial", "pixels", relative=False),
    _named("rq_fast", "gap", regularization=0.1),
    *_of_classes(),
    *_of_classes(relative=False, regularization=0.1),
    Entry("weight_activation_alignment", lambda c: alignment.principal_cosine(c, 5)),
    Entry("weight_activation_alignment", lambda c: alignment.principal_cosine(c, 1), {"top_k": 1}),
    Entry("spectral_alignment", alignment.spectral_alignment),
]
