"""Probes of strategies through the contract: one that reads weights, one that draws by chance.

Probes are made by name when asked for, and none is in `Lens.names()`: running every strategy's
would only repeat the same code. Those that score on data are not split-invariant without
calibration batches of their own; tests/pruning/test_probes.py holds them to `evaluate`.
"""

from __future__ import annotations

import pytest

from nodelens.testing import Check, checks

EVERY_CHECK = [c for name in ("prune_magnitude", "prune_random") for c in checks(name)]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_a_probe_keeps_the_contract(check: Check):
    check()
