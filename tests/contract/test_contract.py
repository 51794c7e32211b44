"""Every registered lens through every public check: a new lens is covered at once."""

from __future__ import annotations

import pytest

from nodelens import Lens
from nodelens.testing import Check, checks

ELSEWHERE = {
    "split_invariance",  # in float64 it is stricter
    "composite",  # test_every_metric_at_once_scores_as_it_does_alone
    "no_row_of_padding",  # oracles and layouts of padded tokens
    "half_precision",  # test_precision
    "untouched_model",  # untouched_after_a_failure looks after a run as well
    "merge_laws",  # tests/statistics/test_laws.py, of every statistic; splits merge as well
    "saved_state",  # tests/statistics/test_laws.py, of every statistic
    "repeatable",
}
"""Checks that the fast tests make in another way, of most lenses at once."""


def param(check: Check):
    return pytest.param(check, marks=[pytest.mark.slow] if check.key in ELSEWHERE else [])


EVERY_CHECK = [param(check) for name in Lens.names() for check in checks(name)]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_every_lens_keeps_the_contract(check: Check):
    if check.skipped is not None:
        pytest.skip(f"{check.lens}: {check.skipped}")
    check()
