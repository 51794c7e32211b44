"""Every registered lens through every public check: a new lens is covered at once."""

from __future__ import annotations

import pytest

from nodelens.testing import Check, checks, lens_names

EVERY_CHECK = [check for name in lens_names() for check in checks(name)]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_every_lens_keeps_the_contract(check: Check):
    if check.skipped is not None:
        pytest.skip(f"{check.lens}: {check.skipped}")
    check()
