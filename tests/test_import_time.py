"""`import nodelens` is cheap: what is heavy loads when it is used."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys

import pytest

import nodelens

PROGRAM = """
import json, sys, time
import torch
start = time.perf_counter()
import nodelens
nodelens.Lens
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(sys.modules)]))
"""
HEAVY = {"nnsight", "transformers", "pandas", "matplotlib", "sklearn"}


# Fresh processes that load torch take seconds each: one worker starts them once.
pytestmark = pytest.mark.xdist_group("import time")


@pytest.fixture(scope="module")
def imports() -> list[tuple[float, list[str]]]:
    """Seconds of three imports in fresh processes, and the modules loaded after each."""
    command = [sys.executable, "-c", PROGRAM]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
    return [json.loads(run.stdout) for run in runs]


@pytest.mark.slow
def test_importing_nodelens_costs_at_most_three_tenths_of_a_second_over_torch(imports):
    assert statistics.median(seconds for seconds, _ in imports) <= 0.3


@pytest.mark.slow
def test_importing_nodelens_loads_no_heavy_library(imports):
    assert HEAVY & set(imports[0][1]) == set()


def loaded_by(program: str) -> set[str]:
    """Modules that are loaded when `program` has run in a fresh process."""
    report = "print('\\n', json.dumps(sorted(sys.modules)))"
    text = f"import atexit, json, sys\natexit.register(lambda: {report})\n{program}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "program",
    [
        "import nodelens",
        "import nodelens; nodelens.__version__; dir(nodelens)",
        "from nodelens.cli import main; main(['--help'])",
        "from nodelens.cli import main; main(['run', '--help'])",
    ],
)
def test_the_help_needs_no_torch(program):
    assert {"torch", "numpy", *HEAVY} & loaded_by(program) == set()


def test_every_public_name_is_found_where_it_lives():
    for name in nodelens.__all__:
        public = getattr(nodelens, name)
        assert public.__name__ == name and name in dir(nodelens)
        home = importlib.import_module(f"nodelens.{nodelens._HOMES[name]}")
        assert getattr(home, name) is public
    assert set(nodelens._HOMES) == set(nodelens.__all__)
    assert nodelens.__version__[0].isdigit()


@pytest.mark.slow
def test_parts_are_attributes_as_ever_and_heavy_libraries_wait():
    loaded = loaded_by("import nodelens; nodelens.Lens, nodelens.statistics.Moments")
    assert HEAVY & loaded == set()


def test_what_is_no_part_is_an_error():
    assert not hasattr(nodelens, "Lenz") and not hasattr(nodelens, "_private")
    with pytest.raises(AttributeError, match="module 'nodelens' has no attribute 'Lenz'"):
        nodelens.Lenz
    with pytest.raises(ImportError, match="cannot import name 'Lenz'"):
        from nodelens import Lenz  # noqa: F401


@pytest.mark.slow
def test_what_is_registered_does_not_depend_on_what_was_asked_for_first():
    for first in ("import nodelens.aggregator", "import nodelens.registry"):
        loaded_by(f"{first}; from nodelens.registry import LENSES; LENSES.get('composite')")


@pytest.mark.slow
def test_installed_plugins_are_found_whatever_was_imported():
    loaded_by("from nodelens.registry import LENSES; assert 'rayleigh_quotient' in LENSES.names()")
