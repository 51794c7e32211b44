"""A stranger's package: installed, found by name, held to the contract with no edit here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nodelens import Lens
from nodelens.errors import UnknownNameError
from nodelens.testing import checks

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "examples" / "acme_lens"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package, from a copy that a build may litter."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(PACKAGE, folder / "source")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    target = ["--target", str(folder / "site"), str(folder / "source")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *target], check=True)
    return folder / "site"


def python(site: Path, *arguments: str) -> str:
    path = os.pathsep.join(map(str, (site, ROOT, ROOT / "lenses")))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_whole_package_is_under_sixty_lines():
    files = [path for path in PACKAGE.iterdir() if path.suffix in (".py", ".toml")]
    assert len(files) == 2
    lines = [line for path in files for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 60


def test_the_lens_is_not_here_unless_it_is_installed():
    with pytest.raises(UnknownNameError, match=r"unknown lens 'acme\.silence'"):
        Lens.from_name("acme.silence")


@pytest.mark.slow
def test_an_installed_lens_is_found_by_name_and_keeps_the_contract(site: Path):
    contract = "tests/contract/test_contract.py"
    report = python(
        site, "-m", "pytest", "-q", "-p", "no:cacheprovider", contract, "-k", "acme.", "-m", ""
    )
    number = len(list(checks("activation_sparsity")))
    assert re.search(rf"\b{number} passed, \d+ deselected", report), report


@pytest.mark.slow
def test_the_commands_that_its_page_tells_to_type_know_an_installed_lens(site: Path):
    assert "acme.silence" in python(site, "-m", "nodelens", "check", "acme.silence")
    made = 'from nodelens import Lens; print(Lens.from_name("acme.silence"))'
    assert python(site, "-c", made) == "Silence()\n"
