"""What every figure keeps: pyplot's figures and matplotlib's settings stay as they were."""

from __future__ import annotations

import pytest
from matplotlib import pyplot, rcParams


@pytest.fixture(autouse=True)
def _global_state_stays():
    settings, figures = dict(rcParams), pyplot.get_fignums()
    yield
    assert dict(rcParams) == settings and pyplot.get_fignums() == figures
