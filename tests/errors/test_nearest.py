"""The name that was probably meant."""

from __future__ import annotations

import pytest

from nodelens import Lens
from nodelens.errors import nearest

NEAREST = {
    "magnitdue": "weight_magnitude",
    "weigth_magnitude": "weight_magnitude",
    "kurtosis": "activation_kurtosis",
    "Rayleigh": "rayleigh_quotient",
    "rayliegh": "rayleigh_quotient",
    "saliencey": "taylor_saliency",
    "alignement": "delta_alignment",
    "redundnacy": "node_redundancy",
}


@pytest.mark.parametrize(("typed", "meant"), NEAREST.items())
def test_a_slip_in_one_part_of_a_name_still_finds_it(typed: str, meant: str):
    assert nearest(typed, Lens.names()) == f" (did you mean {meant!r}?)"


@pytest.mark.parametrize("typed", ["zzzz", "", "_", "qqq_qqq", "é" * 1_000_000])
def test_what_is_like_nothing_gets_no_suggestion(typed: str):
    assert nearest(typed, Lens.names()) == ""
