"""A run so small that every test can afford one, and one that is finished once for all tests."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodelens.configs import Config
from nodelens.configs.config_loader import parse_config
from nodelens.experiments import GeneralAlignmentExperiment, experiment
from nodelens.experiments.stages import measure

TINY = """\
experiment:
  name: tiny
model:
  name: mlp
  options: {hidden: [6, 5]}
dataset:
  name: digits
training:
  epochs: 1
lenses:
  - activation_sparsity
  - average_redundancy
  - weight_magnitude
  - delta_alignment
sensitivity:
  scores: [weight_magnitude]
  amounts: [0.5, 1.0]
  random_seeds: [0, 1]
output:
  directory: PUT
"""

Configure = Callable[..., Config]


@pytest.fixture(scope="session", autouse=True)
def _sources_stand_still() -> Iterator[None]:
    """Sources edited while the tests run would make stages run again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "source_code", functools.cache(experiment.source_code))
        patch.setattr(measure, "package_code", lambda classes: "the same")
        yield


@pytest.fixture(scope="session")
def tiny() -> Configure:
    """Return the function from an output folder and overrides to a tiny configuration."""

    def configure(folder: Path, *overrides: str | tuple[str, object]) -> Config:
        given = [("output.directory", str(folder)), *overrides]
        return parse_config(TINY, given, source="tiny.yaml")

    return configure


@pytest.fixture(scope="session")
def finished(tiny: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished tiny run; tests that change it take `copy`."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    GeneralAlignmentExperiment(tiny(folder)).run(progress=False)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for this test alone."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))
