"""`import nodelens` is cheap: what is heavy loads when it is used."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
import torch
start = time.perf_counter()
import nodelens
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(sys.modules)]))
"""
HEAVY = {"nnsight", "transformers", "pandas", "matplotlib", "sklearn"}


@pytest.fixture(scope="module")
def imports() -> list[tuple[float, list[str]]]:
    """Seconds of three imports in fresh processes, and the modules loaded after each."""
    command = [sys.executable, "-c", PROGRAM]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
    return [json.loads(run.stdout) for run in runs]


def test_importing_nodelens_costs_at_most_three_tenths_of_a_second_over_torch(imports):
    assert statistics.median(seconds for seconds, _ in imports) <= 0.3


def test_importing_nodelens_loads_no_heavy_library(imports):
    assert HEAVY & set(imports[0][1]) == set()
